"""The Dagster instance whose history lies in `data/dagster_home`."""

import os
import shutil
import uuid

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from sot_pipeline.defs.durable import locked, write_durably
from sot_pipeline.defs.home import Home

CONFIG = """\
# Written by sot_pipeline on first use; yours to edit.
telemetry: {enabled: false}
nux: {enabled: false}  # the first page is the graph, not a dialog
run_retries: {enabled: true, max_retries: 2}
run_monitoring: {enabled: true, max_runtime_seconds: 86400}
concurrency: {runs: {max_concurrent_runs: 2}}
"""
PROCESS_TAG = "sot/pid"
UNFINISHED = [
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.CANCELING,
]


def prepare_dagster_home(home: Home) -> None:
    """Make the folder and its configuration."""
    home.dagster.mkdir(parents=True, exist_ok=True)
    config = home.dagster / "dagster.yaml"
    if not config.exists():
        write_durably(config, CONFIG.encode())
    if not (home.dagster / "history").exists():
        _make_history(home)


def _make_history(home: Home) -> None:
    """Make Dagster's tables, all or none: it makes them one by one, does not complete what a
    killed process or a full disk cut short, and lets two processes make them at once."""
    with locked(home.dagster / ".lock"):
        if (home.dagster / "history").exists():
            return
        for leftover in home.dagster.glob("new-*"):
            shutil.rmtree(leftover)
        fresh = home.dagster / f"new-{uuid.uuid4().hex}"
        fresh.mkdir()
        shutil.copy(home.dagster / "dagster.yaml", fresh)
        dg.DagsterInstance.from_config(str(fresh)).dispose()
        for name in ("schedules", "history"):  # the history last: it says that all is there
            if (fresh / name).exists():  # not where the configuration keeps it elsewhere
                (fresh / name).rename(home.dagster / name)
        shutil.rmtree(fresh)


NO_OUTPUT = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}


def open_instance(home: Home, *, captures_output: bool = True) -> dg.DagsterInstance:
    """The instance of a home.

    Args:
        captures_output: What steps print is kept for the UI, by four helper processes a step,
            which print tracebacks of their own when Ctrl-C reaches them.
    """
    prepare_dagster_home(home)
    overrides = {} if captures_output else NO_OUTPUT
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home.dagster), overrides=overrides))


def fail_orphaned_runs(instance: dg.DagsterInstance, *, of_command_line: bool = False) -> int:
    """Mark runs as failed whose process is gone; Dagster itself would wait for them for ever.

    Called before the UI starts: whatever an earlier UI launched ended with it, and the command
    line leaves its process id on its runs.

    Args:
        of_command_line: Only runs that carry a process id; the others may be those of a UI
            that is open.
    """
    statuses = [*UNFINISHED, dg.DagsterRunStatus.NOT_STARTED] if of_command_line else UNFINISHED
    orphans = [
        run
        for run in instance.get_runs(dg.RunsFilter(statuses=statuses))
        if not _alive(run.tags.get(PROCESS_TAG))
        and (PROCESS_TAG in run.tags or not of_command_line)
    ]
    for run in orphans:
        instance.report_run_failed(run, "the process that ran it is gone")
    return len(orphans)


def _alive(process_id: str | None) -> bool:
    if process_id is None:
        return False
    try:
        os.kill(int(process_id), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def register_tasks(instance: dg.DagsterInstance, home: Home) -> None:
    instance.add_dynamic_partitions("task", home.task_names())
