"""`dagster dev` with the webserver of this project; what `sot ui` turns into.

`dagster dev` has no option for the module that it starts as its webserver, so the command that it
starts is changed here; a test holds the real processes to it.
"""

import subprocess
import warnings
from collections.abc import Sequence
from typing import Any

from dagster import SupersessionWarning
from dagster._cli import dev

DAGSTERS, OWN = "dagster_webserver", "sot_pipeline.defs.webserver"


def _with_own_webserver(command: Sequence[str], **options: Any) -> subprocess.Popen:
    return _start([OWN if word == DAGSTERS else word for word in command], **options)


_start = dev.open_ipc_subprocess

if __name__ == "__main__":
    dev.open_ipc_subprocess = _with_own_webserver
    # `dg dev`, which supersedes it, starts the same processes and wants a project's folder
    warnings.simplefilter("ignore", SupersessionWarning)
    dev.dev_command(prog_name="sot ui")
