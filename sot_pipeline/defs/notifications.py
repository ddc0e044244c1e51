"""Messages to a webhook: a run failed, or a change of the references moved the selection.

Off until the environment variable `SOT_WEBHOOK_URL` is set where the daemon runs. A message is a
JSON object of names and numbers: no text of a row, and no error text, which may quote one. The
address is a secret: it is read where it is used and appears in no configuration and no log.
"""

import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import dagster as dg

from sot_pipeline.defs.dagster_assets import DATA_VERSION_TAG, SENSOR_SECONDS

URL_VARIABLE = "SOT_WEBHOOK_URL"
TIMEOUT_SECONDS, NUM_ATTEMPTS, PAUSE_SECONDS = 5, 3, 1

CHANGES = dg.AssetKey("purification_changes")
NUMBERS = (
    "moved",
    "tolerance",
    "num_newly_removed",
    "num_newly_kept",
    "num_reference_rows_added",
    "num_reference_rows_removed",
)


@dataclass(frozen=True)
class Message:
    """What is sent, as one JSON object."""

    event: str
    task: str | None
    run_id: str
    asset: str | None
    message: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def post(message: Message, log: logging.Logger) -> bool:
    """Send a message to the webhook, if there is one; whether it arrived.

    A failure is logged and not raised: the work that the message speaks of is done. Redirects
    are not followed.
    """
    url = os.environ.get(URL_VARIABLE)
    if not url:
        return False
    if not url.lower().startswith(("http://", "https://")):
        log.warning(f"{URL_VARIABLE} is not an http(s) address: nothing was sent")
        return False
    body = json.dumps(asdict(message)).encode()
    opener = urllib.request.build_opener(_NoRedirects)
    problem = ""
    for attempt in range(NUM_ATTEMPTS):
        time.sleep(PAUSE_SECONDS * attempt)
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with opener.open(request, timeout=TIMEOUT_SECONDS):
                return True
        except urllib.error.HTTPError as error:
            problem = f"status {error.code}"
            error.close()
        except (
            OSError,
            ValueError,
            http.client.HTTPException,
        ) as error:  # its text may hold the address
            problem = type(error).__name__
    log.warning(f"the webhook did not take {message.event!r} ({problem}), {NUM_ATTEMPTS} attempts")
    return False


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


@dg.run_failure_sensor(
    minimum_interval_seconds=SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Tells the webhook ({URL_VARIABLE}) of every run that failed; off without one.",
)
def run_failed(context: dg.RunFailureSensorContext) -> None:
    run, failures = context.dagster_run, context.get_step_failure_events()
    assets = sorted({event.step_key for event in failures if event.step_key})
    named = ", ".join(assets) or "no asset"
    post(
        Message(
            event="run_failed",
            task=run.tags.get("dagster/partition"),
            run_id=run.run_id,
            asset=assets[0] if assets else None,
            message=f"The run failed ({named}). Its page in the Dagster UI says why.",
            numbers={"num_failed_assets": len(assets)},
        ),
        context.log,
    )


@dg.sensor(
    minimum_interval_seconds=SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        f"Tells the webhook ({URL_VARIABLE}) when a change moved a task's training weights by "
        "more than the tolerance; off without one."
    ),
)
def selection_moved(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Reads the events of `purification_changes` in their order, each once; the same data version
    again (a run that found nothing to do) is no news."""
    cursor = json.loads(context.cursor) if context.cursor else _now(context.instance)
    after, versions = cursor["after"], cursor["versions"]
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=CHANGES, after_storage_id=after), limit=20, ascending=True
    ).records
    for record in records:
        materialization = record.asset_materialization
        assert materialization is not None
        task, version = (
            materialization.partition,
            (materialization.tags or {}).get(DATA_VERSION_TAG),
        )
        values = {name: value.value for name, value in materialization.metadata.items()}
        news = version is None or versions.get(task) != version
        if news and values.get("selection_moved"):
            post(_moved(task, record.run_id, values), context.log)
        after, versions = record.storage_id, {**versions, task: version}
    return dg.SensorResult(cursor=json.dumps({"after": after, "versions": versions}))


def _now(instance: dg.DagsterInstance) -> dict:
    """A cursor behind everything that has happened: history is no news."""
    latest = instance.get_latest_materialization_event(CHANGES)
    records = instance.fetch_materializations(CHANGES, limit=1).records if latest else []
    return {"after": records[0].storage_id if records else 0, "versions": {}}


def _moved(task: str | None, run_id: str, values: Mapping[str, object]) -> Message:
    known = {name: values.get(name) for name in NUMBERS}
    numbers = {name: value for name, value in known.items() if isinstance(value, int | float)}
    return Message(
        event="selection_moved",
        task=task,
        run_id=run_id,
        asset=CHANGES.to_user_string(),
        message="The training weights moved by more than the tolerance: look at the changes.",
        numbers=numbers,
    )
