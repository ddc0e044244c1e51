"""What runs by itself, task by task.

A changed file of a text set (`source_files`) makes one run of exactly the assets that depend on
it; so does changed code. An asset is kept up to date from the first time that a person had it
made: a new task starts nothing. What an event could not bring about (a run that failed, a changed
setting) is caught up every night; finding that nothing changed costs seconds.
"""

from collections.abc import Iterator
from typing import Any, cast

import dagster as dg

from sot_pipeline.defs.cached_asset import CachedAsset
from sot_pipeline.defs.dagster_assets import SENSOR_SECONDS, TASKS, HomeResource
from sot_pipeline.defs.instance import fail_orphaned_runs

_AC = dg.AutomationCondition


def on_change(asset: CachedAsset) -> dg.AutomationCondition:
    """Requests an asset of a task when its inputs, its files or its code changed."""
    # for the type checker, a condition on code is another kind than one on dependencies
    changed = cast(
        "dg.AutomationCondition[Any]", _AC.any_deps_updated() | _AC.code_version_changed()
    )
    missing = _AC.any_deps_missing()
    if asset.optional:
        missing = missing.ignore(dg.AssetSelection.assets(*asset.optional))
    return (
        changed.since_last_handled()
        & ~_AC.missing()  # armed by a person, once
        & ~missing
        & ~_AC.any_deps_in_progress()
        & ~_AC.in_progress()
        & _AC.all_deps_blocking_checks_passed()
    ).with_label("sot_on_change")


sot_automation = dg.AutomationConditionSensorDefinition(
    "sot_automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=SENSOR_SECONDS,
    emit_backfills=False,  # several tasks: one ordinary run each
    description="Runs the assets whose files, inputs or code changed since they were made.",
)


@dg.sensor(
    minimum_interval_seconds=SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Keeps the task partitions equal to the files in data/tasks/.",
)
def task_files(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult:
    wanted = set(home.home().task_names())
    known = set(context.instance.get_dynamic_partitions(str(TASKS.name)))
    requests = []
    if wanted - known:
        requests.append(TASKS.build_add_request(sorted(wanted - known)))
    if known - wanted:
        requests.append(TASKS.build_delete_request(sorted(known - wanted)))
    return dg.SensorResult(dynamic_partitions_requests=requests)


@dg.sensor(
    minimum_interval_seconds=SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Marks runs as failed whose process on this machine is gone (power loss, kill -9); "
        "Dagster then takes them up again where they stopped."
    ),
)
def orphaned_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    num_failed = fail_orphaned_runs(context.instance)
    return dg.SkipReason(f"{num_failed} runs without a process")


@dg.schedule(
    cron_schedule="0 3 * * *",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Every night at 03:00 UTC, for every task: the assets that it has, so that failures and "
        "changed settings are caught up. What is up to date is found in the store."
    ),
)
def nightly_reconcile(
    context: dg.ScheduleEvaluationContext, home: HomeResource
) -> Iterator[dg.RunRequest]:
    graph = context.repository_def.asset_graph
    assets = [  # but for those that run only when a person asks
        key for key in graph.materializable_asset_keys if graph.get(key).automation_condition
    ]
    tasks_of = {key: context.instance.get_materialized_partitions(key) for key in assets}
    for task in home.home().task_names():
        made = sorted(key for key in assets if task in tasks_of[key])
        if made:
            night = context.scheduled_execution_time.date().isoformat()
            yield dg.RunRequest(run_key=f"{task}/{night}", partition_key=task, asset_selection=made)
