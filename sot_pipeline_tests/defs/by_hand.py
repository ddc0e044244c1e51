"""What the daemon hands to sensors, schedules and runs, for calling them by hand."""

import dagster as dg

from sot_pipeline.defs.dagster_assets import HomeResource, NoReturnValues
from sot_pipeline.defs.home import Home


def resources(home: Home) -> dict[str, object]:
    return {"home": HomeResource(root=str(home.root)), "io_manager": NoReturnValues()}


def sensor_context(home: Home, instance: dg.DagsterInstance, cursor: str | None = None):
    home_resource = HomeResource(root=str(home.root))
    return dg.build_sensor_context(instance, cursor, resources={"home": home_resource})
