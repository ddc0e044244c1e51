"""What is reported when a file changes, what follows from it, and what is swept away."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from sot_pipeline.definitions import ASSETS, SENSORS, build_definitions, defs
from sot_pipeline.defs import source_files as module
from sot_pipeline.defs.automation import nightly_reconcile, on_change, task_files
from sot_pipeline.defs.cached_asset import CheckSpec, cached_asset, check
from sot_pipeline.defs.dagster_assets import (
    DATA_VERSION_TAG,
    MAX_RETRIES,
    SOURCE_FILES,
    HomeResource,
    NoReturnValues,
    dagster_asset,
    seconds_from_environment,
)
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.instance import (
    PROCESS_TAG,
    UNCLAIMED_SECONDS,
    claim_run,
    fail_orphaned_runs,
    open_instance,
)
from sot_pipeline.defs.source_files import source_files, text_set_files
from sot_pipeline.defs.store import Artifact, Stored
from sot_pipeline.errors import InputError

QUIET = module.QUIET_SECONDS
NAMES = [asset.name for asset in ASSETS]


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    folder = tmp_path / "texts"
    folder.mkdir()
    return {
        role: write(folder / f"{role}.jsonl", f'{{"prompt": "{role}", "response": "yes"}}\n')
        for role in ("custom", "safe", "harmful")
    }


@pytest.fixture
def home(tmp_path, files) -> Home:
    home = Home(tmp_path / "data")
    home.write_task("small", TaskFile(**files))
    return home


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("task", ["small"])
        yield instance


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def resources(home: Home) -> dict[str, object]:
    return {"home": HomeResource(root=str(home.root)), "io_manager": NoReturnValues()}


def sensor_context(home: Home, instance: dg.DagsterInstance, cursor: str | None = None):
    home_resource = HomeResource(root=str(home.root))
    return dg.build_sensor_context(instance, cursor, resources={"home": home_resource})


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
    assert set(ticks.tick(after=1)) == {"custom_file", "safe_file", "harmful_file"}
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
    assert set(ticks.settle()) == {"custom_file", "harmful_file"}
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
    assert len(ticks.settle()) == 3


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
        *(dagster_asset(asset) for asset in ASSETS if asset.name.endswith("_texts")),
    ]
    result = dg.materialize(
        graph, instance=instance, partition_key="small", resources=resources(home),
        selection=dg.AssetSelection.assets("custom_texts", "safe_texts", "harmful_texts"),
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
    assert set(ticks.settle()) == {"custom_file", "harmful_file"}
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


# -- from observations to requests ------------------------------------------------------------


class Automation:
    """The conditions of the whole graph, evaluated by hand on reported events."""

    def __init__(self, instance: dg.DagsterInstance, *tasks: str) -> None:
        self.instance, self.cursor, self.version = instance, None, 0
        instance.add_dynamic_partitions("task", list(tasks))
        self.defs = build_definitions()

    def requested(self) -> dict[str, set[str]]:
        """The assets that are requested now, by task."""
        result = dg.evaluate_automation_conditions(
            self.defs, self.instance, dg.AssetSelection.all(), cursor=self.cursor
        )
        self.cursor = result.cursor
        found: dict[str, set[str]] = {}
        for asset in ASSETS:
            for task in result.get_requested_partitions(dg.AssetKey(asset.name)):
                found.setdefault(task, set()).add(asset.name)
        return found

    def made(self, task: str, *assets: str) -> None:
        for name in assets:
            self.version += 1
            tags = {DATA_VERSION_TAG: str(self.version)}
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(name, partition=task, tags=tags)
            )

    def observed(self, task: str, file: str, version: str) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetObservation(file, partition=task, tags={DATA_VERSION_TAG: version})
        )


@pytest.fixture
def automation(instance) -> Automation:
    """Two tasks; `small` has everything, `new` has only been observed."""
    automation = Automation(instance, "small", "new")
    for task in ("small", "new"):
        for file in SOURCE_FILES.values():
            automation.observed(task, file, "first")
    automation.made("small", *NAMES)
    assert automation.requested() == {}
    assert automation.requested() == {}
    return automation


def test_a_changed_reference_requests_what_depends_on_it_in_one_go(automation):
    automation.observed("small", "harmful_file", "second")
    (assets,) = automation.requested().values()
    assert assets >= {"harmful_texts", "push_cost", "selected_samples", "adapter", "safety_report"}
    assert not assets & {"custom_texts", "safe_texts", "safe_embeddings", "pull_cost"}
    assert automation.requested() == {}


def test_both_references_together_request_one_run(automation):
    automation.observed("small", "harmful_file", "second")
    automation.observed("small", "safe_file", "second")
    requested = automation.requested()
    assert set(requested) == {"small"}
    assert not requested["small"] & {"custom_texts", "custom_embeddings", "aligned_base_model"}
    assert automation.requested() == {}


def test_an_observation_of_the_same_version_requests_nothing(automation):
    automation.observed("small", "harmful_file", "first")
    assert automation.requested() == {}


def test_a_task_that_was_never_made_is_left_alone_until_it_was(automation):
    automation.observed("new", "harmful_file", "second")
    assert automation.requested() == {}
    automation.made("new", "custom_texts", "safe_texts", "harmful_texts", "rejected_rows")
    assert automation.requested() == {}
    automation.observed("new", "harmful_file", "third")
    assert automation.requested() == {"new": {"harmful_texts", "rejected_rows"}}


FINE = CheckSpec("fine", "Whether the test says so.", blocking=True)


class Pair:
    """Two assets, of which the first has a blocking check, really materialised; the second could
    use a third, which is never made."""

    def __init__(self, home: Home, instance: dg.DagsterInstance) -> None:
        verdict = self.verdict = {"version": 0, "fine": True}

        @cached_asset(
            group="transport", kinds={"polars"}, checks=(FINE,), source=lambda *_: dict(verdict)
        )
        def first(stage) -> Artifact:
            """Changes each time."""
            table = pl.DataFrame({"version": [verdict["version"]]})
            return Artifact(table, checks=(check(FINE, bool(verdict["fine"]), "as told"),))

        @cached_asset(group="transport", kinds={"polars"})
        def never(stage) -> Artifact:
            """An input that a task can do without."""
            return Artifact(document={})

        @cached_asset(group="transport", kinds={"polars"})
        def second(stage, first: pl.DataFrame, never: Stored | None) -> Artifact:
            """Follows from the first."""
            return Artifact(first)

        self.instance, self.cursor = instance, None
        self.defs = dg.Definitions(
            assets=[dagster_asset(asset, on_change(asset)) for asset in (first, second, never)],
            resources=resources(home),
        )

    def make(self, task: str, *assets: str, fine: bool = True) -> None:
        self.verdict |= {"version": self.verdict["version"] + 1, "fine": fine}
        job = self.defs.resolve_implicit_global_asset_job_def()
        job.execute_in_process(
            partition_key=task,
            instance=self.instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            raise_on_error=False,
        )

    def requested(self) -> set[str]:
        """Tasks whose second asset is requested now."""
        result = dg.evaluate_automation_conditions(
            self.defs, self.instance, dg.AssetSelection.all(), cursor=self.cursor
        )
        self.cursor = result.cursor
        assert not result.get_requested_partitions(dg.AssetKey("first"))
        return {str(task) for task in result.get_requested_partitions(dg.AssetKey("second"))}


@pytest.fixture
def pair(home, instance) -> Pair:
    home.write_task("other", home.read_task("small"))
    instance.add_dynamic_partitions("task", ["other"])
    pair = Pair(home, instance)
    for task in ("small", "other"):
        pair.make(task, "first", "second")
    assert pair.requested() == set()
    return pair


def test_an_asset_made_alone_requests_what_follows_from_it(pair):
    pair.make("small", "first")
    assert pair.requested() == {"small"}
    assert pair.requested() == set()
    pair.make("small", "second")
    assert pair.requested() == set()


def test_a_failed_blocking_check_holds_back_its_own_task_until_it_passes(pair):
    pair.make("small", "first", fine=False)
    assert pair.requested() == set()
    pair.make("other", "first")  # that this one passed says nothing of the other
    assert pair.requested() == {"other"}
    assert pair.requested() == set()
    pair.make("small", "first")
    assert pair.requested() == {"small"}


# -- what else runs by itself -----------------------------------------------------------------


def test_task_partitions_are_the_task_files(home, instance):
    instance.add_dynamic_partitions("task", ["deleted-long-ago"])
    home.write_task("added", home.read_task("small"))
    with sensor_context(home, instance) as context:
        result = task_files(context)
    assert isinstance(result, dg.SensorResult)
    requests = result.dynamic_partitions_requests or []
    assert {tuple(request.partition_keys) for request in requests} == {
        ("added",),
        ("deleted-long-ago",),
    }


def test_every_night_each_task_asks_for_what_it_has(home):
    home.write_task("half", home.read_task("small"))
    home.write_task("untouched", home.read_task("small"))
    made = [(name, "small") for name in NAMES] + [("safe_texts", "half"), ("safe_texts", "gone")]
    with open_instance(home) as instance:
        for name, task in made:
            instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=task))
        context = dg.build_schedule_context(
            instance=instance,
            repository_def=build_definitions().get_repository_def(),
            resources={"home": HomeResource(root=str(home.root))},
            scheduled_execution_time=datetime(2026, 1, 2, 3, tzinfo=UTC),
        )
        with context:
            requests = list(nightly_reconcile(context))
    asked = {
        request.partition_key: {key.to_user_string() for key in request.asset_selection}
        for request in requests
    }
    assert asked == {"small": set(NAMES), "half": {"safe_texts"}}
    assert {request.run_key for request in requests} == {"small/2026-01-02", "half/2026-01-02"}


def test_everything_that_runs_by_itself_is_on_from_the_start():
    for sensor in SENSORS:
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
        assert sensor.description
    assert nightly_reconcile.default_status == dg.DefaultScheduleStatus.RUNNING


def failing_asset(
    home: Home, errors: list[Exception], kinds: set[str]
) -> dg.ExecuteInProcessResult:
    """Run an asset that raises these errors, one an attempt."""

    @cached_asset(group="adapter", kinds=kinds)
    def unsteady(stage) -> Artifact:
        """Fails as often as it is told."""
        if errors:
            raise errors.pop(0)
        return Artifact(document={})

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("task", ["small"])
        return dg.materialize(
            [dagster_asset(unsteady)], instance=instance, partition_key="small",
            resources=resources(home), raise_on_error=False,
        )  # fmt: skip


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr("sot_pipeline.defs.dagster_assets.RETRY_SECONDS", 0)


def test_a_step_on_a_device_or_the_network_is_tried_again(home, no_pause):
    assert not failing_asset(home, [OSError("no route")] * (MAX_RETRIES + 1), {"torch"}).success
    assert failing_asset(home, [OSError("no route")] * MAX_RETRIES, {"torch"}).success


def test_other_steps_and_what_a_person_must_mend_are_not_tried_again(home, no_pause):
    errors: list[Exception] = [OSError("disk full"), OSError("disk full")]
    assert not failing_asset(home, errors, {"polars"}).success
    assert len(errors) == 1
    errors = [InputError("no such file"), InputError("no such file")]
    assert not failing_asset(home, errors, {"torch"}).success
    assert len(errors) == 1


# -- runs without a process -------------------------------------------------------------------


@pytest.fixture
def started(tmp_path):
    """Make runs that Dagster believes to be running."""
    with open_instance(Home(tmp_path)) as instance:
        job = defs().resolve_job_def("purify")

        def start(**tags: str) -> str:
            run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
            return run.run_id

        yield instance, start


def claimed_by_another_process(instance: dg.DagsterInstance, run_id: str) -> subprocess.Popen:
    """A live process that claimed a run, and waits."""
    code = (
        "import sys, time, dagster as dg; from sot_pipeline.defs.instance import claim_run\n"
        "instance = dg.DagsterInstance.from_config(sys.argv[1])\n"
        "claim_run(instance, sys.argv[2]); print('claimed', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, instance.root_directory, run_id],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"claimed\n"
    return process


def test_a_run_is_failed_when_its_process_dies_and_not_before(started):
    instance, start = started
    run_id = start()
    with claimed_by_another_process(instance, run_id) as process:
        try:
            assert fail_orphaned_runs(instance) == 0
        finally:
            process.kill()
        wait_for_zombie(process.pid)  # killed, and not yet waited for: no longer at work
        assert fail_orphaned_runs(instance) == 1
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert fail_orphaned_runs(instance) == 0


def wait_for_zombie(process_id: int) -> None:
    for _ in range(100):
        if ") Z " in Path(f"/proc/{process_id}/stat").read_text():
            return
        time.sleep(0.05)
    raise AssertionError("the process lives on")


def test_a_process_id_that_another_process_has_now_is_not_the_run(started):
    instance, start = started
    run_id = start()
    claim_run(instance, run_id)
    assert fail_orphaned_runs(instance) == 0
    run = instance.get_run_by_id(run_id)
    mark = json.loads(run.tags[PROCESS_TAG])
    instance.add_run_tags(run_id, {PROCESS_TAG: json.dumps([*mark[:3], "12345"])})
    assert fail_orphaned_runs(instance) == 1


def test_a_run_of_another_host_is_left_alone(started):
    instance, start = started
    run_id = start()
    mark = json.dumps([run_id, "another-host", 2**22 + 1, "1"])
    instance.add_run_tags(run_id, {PROCESS_TAG: mark})
    assert fail_orphaned_runs(instance, now=time.time() + 10 * UNCLAIMED_SECONDS) == 0


def test_a_run_that_nobody_claimed_has_time_to_begin(started):
    instance, start = started
    start()
    inherited = json.dumps(["the run that this one repeats", "host", 2**22 + 1, "1"])
    start(**{PROCESS_TAG: inherited})
    assert fail_orphaned_runs(instance) == 0
    assert fail_orphaned_runs(instance, now=time.time() + UNCLAIMED_SECONDS + 5) == 2


def test_every_run_is_claimed_by_its_steps(home):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("task", ["small"])
        asset = next(asset for asset in ASSETS if asset.name == "safe_texts")
        result = dg.materialize(
            [dagster_asset(asset)],
            instance=instance,
            partition_key="small",
            resources=resources(home),
        )
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert json.loads(run.tags[PROCESS_TAG])[:3:2] == [result.run_id, os.getpid()]
