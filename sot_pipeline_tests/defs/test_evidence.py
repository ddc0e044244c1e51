"""What the asset `explanations` reads: the solve that decides, mapped back to whole references."""

import numpy as np
import polars as pl
import pytest

from sot_pipeline.defs.assets.transport import load_fit
from sot_pipeline.defs.evidence import deciding_solve
from sot_pipeline.transport.cost import cosine_cost
from sot_pipeline_tests.small_home import SmallProject

CATEGORIES = ("fraud", "privacy", None)
SCALARS = {
    "harmful_category", "harmful_category_share", "keep_fraction_needed", "false_keep_rate_needed",
    "lambda_change", "far_from_references", "decision", "explanation",
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> SmallProject:
    """Cut by a calibration, whose solve knows a part of the references."""
    made = SmallProject(tmp_path_factory.mktemp("evidence"))
    made.settings["selection"] = {"method": "calibrated", "max_false_keep_rate": 0.2}
    made.edit(
        "harmful",
        lambda rows: [row | {"category": CATEGORIES[i % 3]} for i, row in enumerate(rows)],
    )
    made.write_task("small")
    made.run()
    return made


@pytest.fixture(scope="module")
def table(project) -> pl.DataFrame:
    return project.current("explanations").table()


@pytest.mark.parametrize("name", ["safe", "harmful"])
def test_the_named_rows_are_those_of_the_calibrations_own_plan(project, table, name):
    folder = project.current("calibration").directory
    fitted, center = (np.load(folder / f"{part}.npy") for part in (f"{name}_fitted", "center"))
    custom, reference = (project.current(f"{part}_embeddings").array() for part in ("custom", name))
    fit = load_fit(folder / "fit")
    g = fit.g_pull if name == "safe" else fit.g_push
    exponents = (g - cosine_cost(custom, reference[fitted], center=center)) / fit.epsilon
    plan = np.exp(exponents)
    shares = plan / plan.sum(axis=1, keepdims=True)
    ids = project.current(f"{name}_texts").table()["sample_id"].gather(fitted)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :3]
    expected = [ids.gather(row).to_list() for row in order]
    assert table[f"{name}_ids"].to_list() == expected
    np.testing.assert_allclose(
        np.array(table[f"{name}_shares"].to_list()),
        np.take_along_axis(shares, order, 1),
        rtol=1e-4,
    )


def test_potentials_of_the_custom_rows_explain_their_scores(project, table):
    solve = deciding_solve(project.current("sample_weights"), project.current("calibration"))
    potentials = solve.counterfactual(60).potentials
    assert potentials is not None
    assert len(potentials.pull) == 60
    line = 0.5 * (potentials.push - potentials.pull)
    assert np.corrcoef(line, table["log_weight"])[0, 1] > 0.9999


def test_the_false_keep_rate_needed_is_below_the_settings_for_kept_rows_alone(table):
    allowed = pl.col("false_keep_rate_needed").fill_null(1) <= 0.2
    assert table.select((allowed == pl.col("kept")).all()).item()


def test_categories_of_the_harmful_reference_are_named(table):
    assert set(table["harmful_category"]) <= {"fraud", "privacy", None}
    assert table["harmful_category"].drop_nulls().len() > 0


def test_the_ledger_and_the_removed_rows_carry_the_new_columns(project, table):
    ledger = pl.read_parquet(project.current("purified_export").directory / "ledger.parquet")
    assert set(ledger.columns) >= SCALARS | {"reason", "kept"}
    assert ledger["explanation"].to_list() == table["explanation"].to_list()
    removed = project.current("removed_samples").table()
    assert set(removed.columns) >= SCALARS
    assert removed.height == table.filter(~pl.col("kept")).height
