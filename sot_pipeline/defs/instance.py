"""The Dagster instance whose history lies in `data/dagster_home`."""

import json
import os
import shutil
import socket
import time
import uuid
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from sot_pipeline.defs.home import Home
from sot_pipeline.durable import locked, write_durably

CONFIG = """\
# Written by sot_pipeline on first use; yours to edit.
telemetry: {enabled: false}
nux: {enabled: false}  # the first page is the graph, not a dialog
# a run whose process died is taken up again; a run that ended with an error would end so again
run_retries: {enabled: true, max_retries: 2, retry_on_asset_or_op_failure: false}
run_monitoring: {enabled: true, max_runtime_seconds: 86400}
concurrency:
  runs:
    max_concurrent_runs: 2
    tag_concurrency_limits:  # one run of a task at a time
      - {key: dagster/partition, value: {applyLimitPerUniqueValue: true}, limit: 1}
"""
PROCESS_TAG = ".dagster/sot_process"  # of the tags that the UI does not list
UNFINISHED = [
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.CANCELING,
]
UNFINISHED_OR_QUEUED = [
    *UNFINISHED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
]
UNCLAIMED_SECONDS = 600


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


def claim_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Leave this process's mark on a run: run id, host, process id, and when the process began.

    The run id is part of it because a repeated run inherits the tags of the run it repeats; the
    beginning, because process ids are used again.
    """
    began = _began(os.getpid())
    mark = json.dumps([run_id, socket.gethostname(), os.getpid(), began])
    instance.add_run_tags(run_id, {PROCESS_TAG: mark})


def fail_orphaned_runs(instance: dg.DagsterInstance, now: float | None = None) -> int:
    """Mark runs as failed whose process is gone; Dagster itself would wait for them for ever.

    A run is claimed by its first step. One that nobody claimed counts as orphaned after
    `UNCLAIMED_SECONDS` without news; one that was claimed on another host is never touched.
    """
    orphans = [
        record.dagster_run
        for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
        if _orphaned(record, time.time() if now is None else now)
    ]
    for run in orphans:
        instance.report_run_failed(run, "the process that ran it is gone")
    return len(orphans)


def _orphaned(record: dg.RunRecord, now: float) -> bool:
    run = record.dagster_run
    run_id, host, process_id, began = json.loads(run.tags.get(PROCESS_TAG, "[null, null, 0, null]"))
    if run_id != run.run_id:
        return now - record.update_timestamp.timestamp() > UNCLAIMED_SECONDS
    return host == socket.gethostname() and _began(process_id) != began


def _began(process_id: int) -> str | None:
    """When a live process began, in the system's own count; None: no such process.

    Where there is no /proc (macOS), only whether there is one: "alive".
    """
    if Path("/proc/self/stat").exists():
        try:
            status = Path(f"/proc/{process_id}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = status.rpartition(")")[2].split()  # the name before may hold spaces
        return None if fields[0] == "Z" else fields[19]
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"


def register_tasks(instance: dg.DagsterInstance, home: Home) -> None:
    instance.add_dynamic_partitions("task", home.task_names())


def say_that_automation_runs(instance: dg.DagsterInstance) -> None:
    """Job pages say "Auto-materialize off" by a switch that counts only where no sensor
    evaluates conditions; ours does."""
    from dagster._daemon.asset_daemon import set_auto_materialize_paused

    set_auto_materialize_paused(instance, paused=False)
