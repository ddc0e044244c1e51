"""What the webhook is told: names and numbers, once, and never at the price of the work."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest

from sot_pipeline.defs import notifications
from sot_pipeline.defs.dagster_assets import DATA_VERSION_TAG
from sot_pipeline.defs.notifications import (
    CHANGES,
    NUM_ATTEMPTS,
    URL_VARIABLE,
    Message,
    post,
    run_failed,
    selection_moved,
)

LOG = logging.getLogger("test")
MESSAGE = Message("run_failed", "small", "run-1", "adapter", "The run failed.")
SECRET = "token-that-nobody-may-see"


class Webhook:
    """A receiver that answers as it is told and keeps what it got."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.received: list[tuple[str, dict]] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.received.append((self.path, json.loads(body)))
                self.send_response(webhook.answers.pop(0) if webhook.answers else 204)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{SECRET}"

    @property
    def messages(self) -> list[dict]:
        return [message for _, message in self.received]


@pytest.fixture
def webhook(monkeypatch) -> Iterator[Webhook]:
    webhook = Webhook()
    thread = threading.Thread(target=webhook.server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv(URL_VARIABLE, webhook.url)
    yield webhook
    webhook.server.shutdown()
    webhook.server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(notifications, "PAUSE_SECONDS", 0)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_without_an_address_nothing_is_sent(monkeypatch):
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    assert not post(MESSAGE, LOG)


def test_a_message_is_one_json_object(webhook):
    assert post(MESSAGE, LOG)
    assert webhook.received == [
        (
            f"/{SECRET}",
            {
                "event": "run_failed",
                "task": "small",
                "run_id": "run-1",
                "asset": "adapter",
                "message": "The run failed.",
                "numbers": {},
            },
        )
    ]


def test_a_refusal_is_tried_again(webhook):
    webhook.answers = [500] * (NUM_ATTEMPTS - 1)
    assert post(MESSAGE, LOG)
    assert len(webhook.received) == NUM_ATTEMPTS


@pytest.mark.parametrize("status", [302, 403, 500])
def test_lasting_refusal_is_logged_without_the_address_and_not_raised(webhook, caplog, status):
    webhook.answers = [status] * NUM_ATTEMPTS
    assert not post(MESSAGE, LOG)
    assert len(webhook.received) == NUM_ATTEMPTS, "and a redirect is not followed"
    assert f"status {status}" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:1/{SECRET}",  # nobody listens
        f"file:///etc/{SECRET}",
        f"ftp://127.0.0.1/{SECRET}",
        f"http://[{SECRET}",
        f"http://127.0.0.1:port/{SECRET}",
        SECRET,
    ],
)
def test_an_address_that_cannot_be_used_is_logged_without_it(monkeypatch, caplog, url):
    monkeypatch.setenv(URL_VARIABLE, url)
    assert not post(MESSAGE, LOG)
    assert caplog.text
    assert SECRET not in caplog.text


def failed_run(instance: dg.DagsterInstance) -> dg.RunFailureSensorContext:
    @dg.op
    def harmful_texts():
        raise ValueError("what is the row's own text")

    @dg.job
    def broken():
        harmful_texts()

    result = broken.execute_in_process(
        instance=instance, raise_on_error=False, tags={"dagster/partition": "small"}
    )
    return dg.build_run_status_sensor_context(
        sensor_name="run_failed",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
    ).for_run_failure()


def test_a_failed_run_is_told_with_its_asset_and_no_error_text(webhook, instance):
    context = failed_run(instance)
    run_failed(context)
    (message,) = webhook.messages
    assert message["event"] == "run_failed"
    assert message["task"] == "small"
    assert message["asset"] == "harmful_texts"
    assert message["run_id"] == context.dagster_run.run_id
    assert message["numbers"] == {"num_failed_assets": 1}
    assert "row's own text" not in json.dumps(message)


class Changes:
    """The sensor on `purification_changes`, ticked by hand."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.cursor = instance, None

    def report(self, task: str, news: bool, version: str | None = None, **values: object) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                CHANGES,
                partition=task,
                metadata={"selection_moved": news, **values},
                tags={DATA_VERSION_TAG: version} if version else None,
            )
        )

    def tick(self) -> None:
        with dg.build_sensor_context(self.instance, self.cursor) as context:
            result = selection_moved(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor


def test_a_moved_selection_is_told_with_its_numbers_alone(webhook, instance):
    changes = Changes(instance)
    changes.tick()
    numbers = {
        "moved": 0.25,
        "tolerance": 0.05,
        "num_newly_removed": 3,
        "num_newly_kept": 1,
        "num_reference_rows_added": 20,
        "num_reference_rows_removed": 0,
    }
    changes.report("small", True, **numbers, example="what is the row's own text")
    changes.tick()
    (message,) = webhook.messages
    assert message["event"] == "selection_moved"
    assert (message["task"], message["asset"]) == ("small", "purification_changes")
    assert message["numbers"] == numbers
    assert "row's own text" not in json.dumps(message)


def test_every_task_between_two_ticks_is_told_and_each_once(webhook, instance):
    changes = Changes(instance)
    changes.tick()
    for task in ("one", "two", "three"):
        changes.report(task, True, moved=0.5)
    changes.report("four", False, moved=0.01)
    changes.tick()
    changes.tick()
    assert [message["task"] for message in webhook.messages] == ["one", "two", "three"]


def test_the_same_result_again_is_no_news(webhook, instance):
    changes = Changes(instance)
    changes.tick()
    for version in ("a", "a", "b", "a"):
        changes.report("small", True, version)
        changes.tick()
    assert len(webhook.messages) == 3


def test_what_happened_before_the_first_tick_is_history(webhook, instance):
    changes = Changes(instance)
    changes.report("small", True, "a", moved=0.5)
    changes.tick()
    assert webhook.messages == []
    changes.report("small", True, "b", moved=0.5)
    changes.tick()
    assert len(webhook.messages) == 1


def test_a_deaf_webhook_does_not_hold_up_the_sensor(webhook, instance):
    changes = Changes(instance)
    changes.tick()
    webhook.answers = [500] * NUM_ATTEMPTS
    changes.report("small", True, "a")
    changes.tick()
    changes.report("small", True, "b")
    changes.tick()
    assert len(webhook.messages) == NUM_ATTEMPTS + 1
