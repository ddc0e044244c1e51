"""What a change requests, and what else runs by itself."""

from datetime import UTC, datetime

import dagster as dg
import polars as pl
import pytest

from sot_pipeline.definitions import ASSETS, PIPELINE, SENSORS, build_definitions
from sot_pipeline.defs.automation import nightly_reconcile, on_change, task_files
from sot_pipeline.defs.cached_asset import CheckSpec, cached_asset, check
from sot_pipeline.defs.dagster_assets import (
    DATA_VERSION_TAG,
    MAX_RETRIES,
    SOURCE_FILES,
    HomeResource,
    dagster_asset,
)
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.instance import (
    open_instance,
)
from sot_pipeline.defs.store import Artifact, Stored
from sot_pipeline.errors import InputError
from sot_pipeline_tests.defs.by_hand import resources, sensor_context

NAMES = [asset.name for asset in ASSETS]


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
    by_itself = {asset.name for asset in PIPELINE}  # experiments wait for a person
    assert asked == {"small": by_itself, "half": {"safe_texts"}}
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
