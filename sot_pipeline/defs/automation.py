"""What runs by itself: every task file becomes a partition."""

import dagster as dg

from sot_pipeline.defs.dagster_assets import TASKS, HomeResource


@dg.sensor(
    minimum_interval_seconds=30,
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
