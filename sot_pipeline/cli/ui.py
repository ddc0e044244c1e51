"""Start the Dagster UI."""

import os
import sys
from pathlib import Path

from sot_pipeline.cli.output import say
from sot_pipeline.defs.home import Home

WORKSPACE = """\
load_from:
  - python_module:
      module_name: sot_pipeline.definitions
      location_name: sot_pipeline
"""


def run_ui(root: Path | None, port: int) -> None:
    """Replace this process by `dagster dev`, bound to 127.0.0.1."""
    from sot_pipeline.defs.instance import fail_orphaned_runs, open_instance, register_tasks
    from sot_pipeline.defs.store import Store

    home = Home(root)
    with open_instance(home) as instance:
        register_tasks(instance, home)
        fail_orphaned_runs(instance)
    removed = Store(home.store).sweep()
    if removed:
        say(f"removed {removed} unfinished artefacts of earlier runs")
    say(f"Dagster UI: http://127.0.0.1:{port}  (Ctrl-C stops it)")
    # the same location name as the project's own workspace.yaml: sensors keep their cursors
    workspace = home.dagster / "workspace.yaml"
    workspace.write_text(WORKSPACE)
    dagster = Path(sys.executable).with_name("dagster")
    arguments = ["dev", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)]
    os.environ |= {"DAGSTER_HOME": str(home.dagster), "SOT_HOME": str(home.root)}
    os.execv(dagster, [str(dagster), *arguments])
