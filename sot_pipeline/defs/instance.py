"""The Dagster instance whose history lies in `data/dagster_home`."""

import os

import dagster as dg

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
        config.write_text(CONFIG)


def open_instance(home: Home) -> dg.DagsterInstance:
    prepare_dagster_home(home)
    return dg.DagsterInstance.from_config(str(home.dagster))


def fail_orphaned_runs(instance: dg.DagsterInstance) -> int:
    """Mark runs as failed whose process is gone; Dagster itself would wait for them for ever.

    Called before the UI starts: whatever an earlier UI launched ended with it, and the command
    line leaves its process id on its runs.
    """
    orphans = [
        run
        for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
        if not _alive(run.tags.get(PROCESS_TAG))
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
