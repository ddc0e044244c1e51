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
MAX_TASKS = 5  # whose reports are listed; the UI has them all


def run_ui(root: Path | None, port: int) -> None:
    """Replace this process by `dagster dev` with our webserver, bound to 127.0.0.1."""
    from sot_pipeline.defs.instance import (
        fail_orphaned_runs,
        open_instance,
        register_tasks,
        say_that_automation_runs,
    )
    from sot_pipeline.defs.store import Store

    home = Home(root)
    with open_instance(home) as instance:
        register_tasks(instance, home)
        fail_orphaned_runs(instance)
        say_that_automation_runs(instance)
    removed = Store(home.store).sweep()
    if removed:
        say(f"removed {removed} unfinished artefacts of earlier runs")
    for line in addresses(home, f"http://127.0.0.1:{port}"):
        say(line)
    # the same location name as the project's own workspace.yaml: sensors keep their cursors
    workspace = home.dagster / "workspace.yaml"
    workspace.write_text(WORKSPACE)
    arguments = ["-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)]
    os.environ |= {"DAGSTER_HOME": str(home.dagster), "SOT_HOME": str(home.root)}
    os.execv(sys.executable, [sys.executable, "-m", "sot_pipeline.defs.dev", *arguments])


def addresses(home: Home, ui: str) -> list[str]:
    """Where to look: the graph, its groups, the newest report of each task."""
    from sot_pipeline.defs.pages import GROUPS, MAIN_PATH, group_address
    from sot_pipeline.defs.report_links import newest_report

    lines = [
        f"Dagster UI: {ui}  (ready in about 20 seconds; Ctrl-C stops it)",
        f"  main path       {ui}{MAIN_PATH}",
        f"  everything      {ui}/asset-groups",
        *(f"  {group:15s} {ui}{group_address(group)}" for group in GROUPS),
    ]
    found = {task: newest_report(home, task) for task in home.task_names()}
    links = [f"  report of {task}: {ui}{link}" for task, link in found.items() if link is not None]
    more = [f"  and {len(links) - MAX_TASKS} more"] if len(links) > MAX_TASKS else []
    return [*lines, *links[:MAX_TASKS], *more]
