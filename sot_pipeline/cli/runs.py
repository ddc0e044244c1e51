"""Run a job of the graph in this process, and say what happened as plain values."""

import logging
import os
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from sot_pipeline.defs.home import Home
from sot_pipeline.defs.instance import fail_orphaned_runs, open_instance, register_tasks
from sot_pipeline.defs.store import Store
from sot_pipeline.errors import storage_errors

ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads would take the cores from jax and from others
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # progress is shown by the command line alone
    "TRANSFORMERS_VERBOSITY": "error",
}


@dataclass(frozen=True)
class AssetOutcome:
    asset: str
    cache: str  # "hit" or "miss"
    seconds: float
    rows: int | None


@dataclass(frozen=True)
class CheckOutcome:
    asset: str
    check: str
    passed: bool
    blocking: bool
    description: str


@dataclass(frozen=True)
class RunOutcome:
    run_id: str
    success: bool
    assets: list[AssetOutcome] = field(default_factory=list)
    checks: list[CheckOutcome] = field(default_factory=list)
    error: str | None = None

    @property
    def failed_checks(self) -> list[CheckOutcome]:
        return [check for check in self.checks if not check.passed]


def run_job(home: Home, task: str, job_name: str) -> RunOutcome:
    """Materialise a job's assets for one task; the run appears in the Dagster UI's history.

    Raises:
        StorageError: the home's disk is full, over its quota or read-only.
        KeyboardInterrupt: the run was stopped.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with storage_errors(home.root):
        Store(home.store).sweep()
        with open_instance(home, captures_output=False) as instance:
            fail_orphaned_runs(instance)
            register_tasks(instance, home)
            return _execute(instance, home, task, job_name)


def _execute(instance: dg.DagsterInstance, home: Home, task: str, job_name: str) -> RunOutcome:
    from sot_pipeline.definitions import build_definitions

    job = build_definitions(str(home.root)).resolve_job_def(job_name)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    result = job.execute_in_process(
        partition_key=task,
        instance=instance,
        raise_on_error=False,
        run_config=quiet,
    )
    if any(_interrupted(event) for event in result.all_events):
        raise KeyboardInterrupt
    return RunOutcome(
        run_id=result.run_id,
        success=result.success,
        assets=[_asset_outcome(e) for e in result.get_asset_materialization_events()],
        checks=[_check_outcome(e) for e in result.get_asset_check_evaluations()],
        error=_first_error(result),
    )


def _asset_outcome(event: dg.DagsterEvent) -> AssetOutcome:
    materialization = event.step_materialization_data.materialization
    values: dict[str, Any] = {k: v.value for k, v in materialization.metadata.items()}
    return AssetOutcome(
        asset=materialization.asset_key.to_user_string(),
        cache=values["cache"],
        seconds=values["seconds"],
        rows=values.get("dagster/row_count"),
    )


def _check_outcome(evaluation: Any) -> CheckOutcome:
    return CheckOutcome(
        asset=evaluation.asset_key.to_user_string(),
        check=evaluation.check_name,
        passed=evaluation.passed,
        blocking=evaluation.severity == dg.AssetCheckSeverity.ERROR,
        description=evaluation.description or "",
    )


def _interrupted(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error if event.is_step_failure else None
    return error is not None and error.cls_name == "DagsterExecutionInterruptedError"


def _first_error(result: dg.ExecuteInProcessResult) -> str | None:
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None:
                return f"{event.step_key}: {data.user_failure_data.description}"
            if data.error is not None:
                root = data.error
                while root.cause is not None:
                    root = root.cause
                return f"{event.step_key}: {root.message.strip()}"
        if event.is_job_failure or event.event_type == dg.DagsterEventType.RUN_CANCELED:
            return event.message
    return None
