"""The Dagster side: the graph loads, says what it is, and runs for a partition."""

import dagster as dg
import pytest

from sot_pipeline.cli.runs import run_job
from sot_pipeline.definitions import ASSETS, EXPERIMENTS, JOBS, defs
from sot_pipeline.defs.dagster_assets import SOURCE_FILES, NoReturnValues
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.instance import open_instance
from sot_pipeline.defs.pages import GROUPS
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.store import Store
from sot_pipeline_tests.small_project import write_small_project


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    files = write_small_project(folder / "texts")
    home = Home(folder / "data")
    home.write_task(
        "small",
        TaskFile(
            custom=files["custom"],
            safe=files["safe"],
            harmful=files["harmful"],
            settings={"embedding": {"encoder": str(files["model"])}},
        ),
    )
    return home


def test_the_definitions_load_and_validate():
    dg.Definitions.validate_loadable(defs())


def test_every_asset_says_what_it_is():
    graph = defs().resolve_asset_graph()
    names = {asset.name for asset in ASSETS} | set(SOURCE_FILES.values())
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == names
    for name in names:
        node = graph.get(dg.AssetKey(name))
        assert node.description
        assert node.kinds
        assert node.owners
        assert node.code_version or node.is_observable
        assert node.is_partitioned
        assert node.group_name in GROUPS


def test_declared_settings_exist():
    for asset in ASSETS:
        for name in asset.blocks:
            block, _, field = name.partition(".")
            assert block in Settings.model_fields
            assert not field or field in type(Settings.model_fields[block].default).model_fields


def test_jobs_hold_no_asset_whose_required_input_is_left_out():
    by_name = {asset.name: asset for asset in ASSETS}
    for names in JOBS.values():
        for name in names:
            required = {i for i, kind in by_name[name].inputs.items() if not _optional(kind)}
            assert required <= names


def _optional(kind: object) -> bool:
    return type(None) in getattr(kind, "__args__", ())


def test_a_job_runs_for_a_partition_and_a_second_run_computes_nothing(home: Home):
    first = run_job(home, "small", "purify")
    assert first.success, first.error
    assert {a.asset for a in first.assets} == JOBS["purify"]
    assert any(check.check == "converged" and check.passed for check in first.checks)
    second = run_job(home, "small", "purify")
    assert {a.cache for a in second.assets} == {"hit"}
    assert [c.check for c in second.checks] == [c.check for c in first.checks]


def test_the_calibration_is_made_only_where_it_decides(home: Home):
    store = Store(home.store)
    run_job(home, "small", "purify")
    unasked, cut = store.current("small", "calibration"), store.current("small", "selected_samples")
    assert unasked is not None
    assert cut is not None
    assert not unasked.table_path.exists()
    assert "calibration" not in cut.manifest["inputs"]

    task = home.read_task("small")
    selection = {"method": "calibrated", "max_false_keep_rate": 0.2}
    calibrated = task.model_copy(update={"settings": {**task.settings, "selection": selection}})
    home.write_task("calibrated", calibrated)
    outcome = run_job(home, "calibrated", "purify")
    assert outcome.success, outcome.error
    made, cut = (store.current("calibrated", a) for a in ("calibration", "selected_samples"))
    assert made is not None
    assert cut is not None
    assert cut.manifest["inputs"]["calibration"] == made.fingerprint
    assert made.table().columns[:3] == ["sample_id", "log_weight", "rank"]
    assert cut.document["threshold"] < cut.table()["log_weight"].min()


def test_too_few_harmful_rows_for_the_rate_fail_with_the_number_that_would_do(home: Home):
    task = home.read_task("small")
    settings = {**task.settings, "selection": {"method": "calibrated"}}
    home.write_task("strict", task.model_copy(update={"settings": settings}))
    outcome = run_job(home, "strict", "purify")
    assert not outcome.success
    assert outcome.error is not None
    assert "needs 19 held-out harmful rows, there are 8" in outcome.error


def test_a_run_shows_rows_schema_and_figures(home: Home):
    run_job(home, "small", "purify")
    with open_instance(home) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("sample_weights"))
        assert event is not None
        assert event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        assert metadata["dagster/row_count"].value == 60
        columns = metadata["dagster/column_schema"].value.columns
        assert "log_weight" in [column.name for column in columns]
        assert "data:image/png" in metadata["weight_histogram"].value
        assert len(metadata["weight_histogram"].value) < 100_000
        version = event.asset_materialization.tags["dagster/data_version"]
        assert version == metadata["fingerprint"].value


def test_no_row_text_reaches_the_event_log(home: Home):
    run_job(home, "small", "purify")
    with open_instance(home) as instance:
        for run in instance.get_runs():
            for entry in instance.all_logs(run.run_id):
                assert "what is two" not in entry.to_json()


def test_a_missing_source_fails_the_run_with_a_sentence(home: Home, tmp_path):
    task = home.read_task("small")
    home.write_task("gone", task.model_copy(update={"safe": tmp_path / "nowhere.jsonl"}))
    outcome = run_job(home, "gone", "purify")
    assert not outcome.success
    assert outcome.error is not None
    assert "no such file" in outcome.error


def test_a_solve_that_does_not_converge_blocks_what_follows(home: Home):
    task = home.read_task("small")
    settings = {**task.settings, "transport": {"max_steps": 1, "tolerance": 1e-9}}
    home.write_task("hasty", task.model_copy(update={"settings": settings}))
    outcome = run_job(home, "hasty", "purify")
    assert not outcome.success
    failed = [check for check in outcome.failed_checks if check.blocking]
    assert [check.check for check in failed] == ["converged"]
    assert "selected_samples" not in {asset.asset for asset in outcome.assets}


def test_an_accidental_return_value_is_an_error():
    with pytest.raises(TypeError, match="write it to the store"):
        NoReturnValues().handle_output(dg.build_output_context(step_key="x"), object())


def test_experiments_train_for_long_and_run_only_when_asked():
    graph = defs().resolve_asset_graph()
    on_demand = {
        key.to_user_string()
        for key in graph.materializable_asset_keys
        if graph.get(key).automation_condition is None
    }
    assert on_demand == {asset.name for asset in EXPERIMENTS.values()}
