"""When a changed file is reported, and when it is not."""

import json
import os

import dagster as dg
import pytest

from sot_pipeline.definitions import ASSETS, build_definitions, defs
from sot_pipeline.defs import source_files as module
from sot_pipeline.defs.dagster_assets import (
    DATA_VERSION_TAG,
    SOURCE_FILES,
    dagster_asset,
    seconds_from_environment,
)
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.source_files import source_files, text_set_files
from sot_pipeline.errors import InputError
from sot_pipeline_tests.defs.by_hand import resources, sensor_context

QUIET = module.QUIET_SECONDS


class Ticks:
    """The sensor, ticked by hand; reported observations reach the instance, as in the daemon."""

    def __init__(self, home: Home, instance: dg.DagsterInstance, log, monkeypatch) -> None:
        self.home, self.instance, self.log = home, instance, log
        self.cursor, self.now = None, 1e9
        monkeypatch.setattr(module.time, "time", lambda: self.now)

    def tick(self, after: float = 0) -> dict[str, str]:
        """Data version of each file that is reported at this tick."""
        self.now += after
        with sensor_context(self.home, self.instance, self.cursor) as context:
            context.log.addHandler(self.log)
            result = source_files(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        events = list(result.asset_events)
        for event in events:
            self.instance.report_runless_asset_event(event)
        assert {event.partition for event in events} <= {"small"}
        return {e.asset_key.to_user_string(): e.tags[DATA_VERSION_TAG] for e in events}

    def settle(self) -> dict[str, str]:
        self.tick()
        return self.tick(after=QUIET)


@pytest.fixture
def ticks(home, instance, caplog, monkeypatch) -> Ticks:
    return Ticks(home, instance, caplog.handler, monkeypatch)


def test_a_file_is_reported_once_it_was_quiet_for_long_enough(ticks, files):
    assert ticks.tick() == {}
    assert ticks.tick(after=QUIET - 1) == {}
    assert set(ticks.tick(after=1)) == {"custom_file", "safe_file", "harmful_file", "review_file"}
    assert ticks.tick(after=QUIET) == {}
    for _ in range(3):  # a file that goes on growing is not quiet
        with files["harmful"].open("a") as file:
            file.write("{}\n")
        assert ticks.tick(after=QUIET - 1) == {}
    assert set(ticks.tick(after=QUIET)) == {"harmful_file"}


def test_equal_contents_have_equal_versions_and_are_reported_once(ticks, files):
    versions = ticks.settle()
    content = files["safe"].read_bytes()
    files["safe"].write_bytes(content)
    os.utime(files["safe"], (1, 1))
    assert ticks.settle() == {}
    files["safe"].write_bytes(content * 2)
    changed = ticks.settle()
    assert set(changed) == {"safe_file"}
    assert changed["safe_file"] != versions["safe_file"]
    files["safe"].write_bytes(content)  # changed back
    assert ticks.settle() == {"safe_file": versions["safe_file"]}


def test_decisions_are_reported_when_they_come_change_and_go(ticks, home):
    without = ticks.settle()["review_file"]
    path = home.reviews("small")
    path.parent.mkdir()
    path.write_text('{"sample_id": "0f-1", "decision": "keep"}\n')
    first = ticks.settle()
    assert set(first) == {"review_file"}
    path.write_text('{"sample_id": "0f-1", "decision": "drop"}\n')
    assert ticks.settle()["review_file"] not in (without, *first.values())
    path.unlink()
    assert ticks.settle() == {"review_file": without}


def test_a_restart_between_two_ticks_loses_nothing_and_repeats_nothing(ticks, files):
    ticks.settle()
    files["harmful"].write_text("{}\n")
    ticks.tick()
    ticks.cursor = json.dumps(json.loads(ticks.cursor))  # all that a new process gets
    assert set(ticks.tick(after=QUIET)) == {"harmful_file"}
    ticks.cursor = None  # reported, but the cursor was lost with the process
    assert ticks.settle() == {}


def test_a_file_replaced_while_it_is_read_is_taken_again(ticks, files, monkeypatch):
    ticks.settle()
    files["safe"].write_text("{}\n")
    read = module.source_version

    def slow_read(asset, home, task):
        version = read(asset, home, task)
        if asset.name == "safe_texts":
            files["safe"].write_text('{"replaced": "meanwhile"}\n')
        return version

    monkeypatch.setattr(module, "source_version", slow_read)
    assert ticks.settle() == {}
    monkeypatch.setattr(module, "source_version", read)
    assert set(ticks.tick(after=QUIET)) == {"safe_file"}


def test_a_missing_file_is_logged_once_and_others_go_on(ticks, files, caplog):
    content = files["safe"].read_bytes()
    files["safe"].unlink()
    assert set(ticks.settle()) == {"custom_file", "harmful_file", "review_file"}
    assert sum("no such file" in record.message for record in caplog.records) == 1
    caplog.clear()
    assert ticks.tick(after=QUIET) == {}
    assert not caplog.records
    files["safe"].write_bytes(content)
    assert set(ticks.settle()) == {"safe_file"}


def test_a_broken_task_file_is_logged_once_and_its_repair_is_seen(ticks, home, caplog):
    path = home.task_path("small")
    content = path.read_text()
    path.write_text("custom: [")
    assert ticks.settle() == {}
    assert any("small.yaml" in record.message for record in caplog.records)
    caplog.clear()
    assert ticks.tick(after=QUIET) == {}
    assert not caplog.records
    path.write_text(content)
    assert len(ticks.settle()) == 4


def test_a_change_waits_until_the_task_has_no_unfinished_run(ticks, files, instance):
    ticks.settle()
    run = instance.create_run_for_job(
        defs().resolve_job_def("purify"),
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": "small"},
    )
    files["harmful"].write_text("{}\n")
    assert ticks.settle() == {}
    assert ticks.tick(after=QUIET) == {}
    instance.report_run_failed(run)
    assert set(ticks.settle()) == {"harmful_file"}


def test_what_a_run_has_read_is_not_reported_again(ticks, home, instance, files):
    graph = [
        text_set_files,
        *(dagster_asset(asset) for asset in ASSETS if asset.name in SOURCE_FILES),
    ]
    result = dg.materialize(
        graph, instance=instance, partition_key="small", resources=resources(home),
        selection=dg.AssetSelection.assets(*SOURCE_FILES),
    )  # fmt: skip
    assert result.success
    assert ticks.settle() == {}
    files["harmful"].write_text('{"prompt": "new", "response": "row"}\n')
    assert set(ticks.settle()) == {"harmful_file"}


def test_observing_by_hand_records_the_version_that_the_sensor_would(ticks, home, instance, files):
    job = build_definitions(str(home.root)).resolve_implicit_global_asset_job_def()

    def observe() -> bool:
        return job.execute_in_process(
            asset_selection=[dg.AssetKey(file) for file in SOURCE_FILES.values()],
            partition_key="small",
            instance=instance,
            raise_on_error=False,
        ).success

    assert observe()
    assert ticks.settle() == {}
    files["safe"].unlink()
    assert not observe()


def test_references_replaced_one_after_the_other_are_one_change(ticks, files):
    ticks.settle()
    files["safe"].write_text("{}\n")
    ticks.tick()
    files["harmful"].write_text("{}\n")
    assert ticks.tick(after=QUIET) == {}
    assert set(ticks.tick(after=QUIET)) == {"safe_file", "harmful_file"}


def test_a_file_whose_permission_is_mended_is_read(ticks, monkeypatch):
    # the tests may run as root, who may read everything: the refusal is made here
    read = module.source_version

    def refuse(asset, home, task):
        if asset.name == "safe_texts":
            raise PermissionError(13, "Permission denied")
        return read(asset, home, task)

    monkeypatch.setattr(module, "source_version", refuse)
    assert set(ticks.settle()) == {"custom_file", "harmful_file", "review_file"}
    monkeypatch.setattr(module, "source_version", read)
    assert set(ticks.tick()) == {"safe_file"}
    assert ticks.tick() == {}


def test_the_seconds_of_the_sensors_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("SOT_SENSOR_SECONDS", "7")
    assert seconds_from_environment("SOT_SENSOR_SECONDS", 30) == 7
    assert seconds_from_environment("SOT_NOT_SET", 30) == 30
    monkeypatch.setenv("SOT_SENSOR_SECONDS", "soon")
    with pytest.raises(InputError, match="expected a whole number of seconds"):
        seconds_from_environment("SOT_SENSOR_SECONDS", 30)
