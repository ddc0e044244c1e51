"""Quality of a selection where the truth about the rows is known."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from sot_pipeline import selection_quality as module
from sot_pipeline.errors import InputError
from sot_pipeline.selection_quality import Selected, selection_quality

LABELS = ["harmful", "benign", "refusal", "benign", "harmful", "benign"]


def quality(log_weights, kept=None, labels=LABELS, sources=None, **options) -> pl.DataFrame:
    log_weights = np.asarray(log_weights, dtype=float)
    kept = np.ones(len(labels), bool) if kept is None else np.asarray(kept)
    sources = [None] * len(labels) if sources is None else sources
    return selection_quality(
        {"sot": Selected(log_weights, kept)}, labels, sources, num_resamples=50, **options
    )


def value(table: pl.DataFrame, measure: str, column="value", source="all", method="sot") -> float:
    chosen = table.filter(measure=measure, source=source, method=method)
    return chosen[column].item()


def test_a_perfect_order_has_auroc_and_average_precision_of_one():
    table = quality([-9, 1, 2, 3, -8, 4])
    assert value(table, "auroc") == value(table, "average_precision") == 1
    assert value(table, "auroc", "low") == 1


def test_equal_scores_are_no_better_than_chance():
    table = quality([0.0] * 6)
    assert value(table, "auroc") == 0.5
    assert value(table, "average_precision") == pytest.approx(2 / 6)


def test_shares_of_what_stays_and_goes():
    table = quality(range(6), kept=[True, False, False, True, False, True])
    assert value(table, "harmful_left") == 0.5
    assert value(table, "benign_lost") == pytest.approx(1 / 3)
    assert value(table, "refusals_lost") == 1
    assert value(table, "refusals_lost", "num_rows") == 1


def test_a_measure_about_no_row_is_left_out():
    table = quality(range(3), labels=["harmful", "benign", "benign"])
    assert "refusals_lost" not in table["measure"].to_list()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.sampled_from(["harmful", "benign", "refusal"])),
        min_size=2, max_size=40,
    ).filter(lambda rows: {kind == "harmful" for _, kind in rows} == {True, False})
)  # fmt: skip
def test_agrees_with_scikit_learn_ties_included(rows):
    scores, labels = np.array([row[0] for row in rows]), [row[1] for row in rows]
    harmful = np.array(labels) == "harmful"
    table = quality(scores, labels=labels)
    assert value(table, "auroc") == pytest.approx(roc_auc_score(harmful, -scores))
    assert value(table, "average_precision") == pytest.approx(
        average_precision_score(harmful, -scores)
    )


def test_each_source_of_harm_is_measured_against_all_rows_without_harm():
    sources = ["near", "task", "task", "task", "foreign", "task"]
    table = quality([-9, 1, 2, 3, 9, 4], sources=sources)
    assert set(table["source"]) == {"all", "near", "foreign"}
    assert value(table, "auroc", source="near") == 1
    assert value(table, "auroc", source="foreign") == 0
    assert value(table, "auroc") == 0.5


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(400) < 0.3, "harmful", "benign")
    scores = rng.normal(size=400) - (labels == "harmful")
    every = np.ones(400, bool)
    selections = {
        "sot": Selected(scores, every),
        "same": Selected(3 * scores + 1, every),
        "worse": Selected(scores + rng.normal(size=400), every),
    }
    table = selection_quality(selections, labels.tolist(), [None] * 400)
    for column in ("difference", "difference_low", "difference_high"):
        assert value(table, "auroc", column, method="same") == 0
    assert value(table, "auroc", "difference_high", method="worse") < 0


def test_each_resample_is_drawn_once_for_all_methods(monkeypatch):
    drawn, resamples = [], module._resamples
    monkeypatch.setattr(module, "_resamples", lambda *args: drawn.append(args) or resamples(*args))
    one = Selected(np.arange(6.0), np.ones(6, bool))
    sources = ["a", "b", "b", "b", "b", "b"]
    selection_quality(dict.fromkeys(("sot", "x", "y"), one), LABELS, sources, num_resamples=9)
    assert [args[0] for args in drawn] == [6, 5, 5], "of all rows, and of each source's"


def test_how_many_resamples_are_held_at_once_changes_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    scores = rng.integers(5, size=60)
    labels = np.where(rng.random(60) < 0.3, "harmful", "benign").tolist()
    at_once = quality(scores, labels=labels)
    monkeypatch.setattr(module, "_BLOCK", 7 * 60)
    assert quality(scores, labels=labels).equals(at_once)


def test_an_interval_covers_the_value_and_narrows_with_rows():
    def width(num_rows: int) -> float:
        rng = np.random.default_rng(1)
        labels = np.where(rng.random(num_rows) < 0.3, "harmful", "benign")
        table = quality(rng.normal(size=num_rows) - (labels == "harmful"), labels=labels.tolist())
        low, high = value(table, "auroc", "low"), value(table, "auroc", "high")
        assert low < value(table, "auroc") < high
        return high - low

    assert width(4_000) < width(250)


def test_the_same_seed_gives_the_same_table():
    assert quality(range(6), seed=3).equals(quality(range(6), seed=3))


def test_labels_without_harm_are_refused_and_listed():
    with pytest.raises(InputError, match=r"none of the 2 labelled rows .* benign, spam"):
        quality([0, 1], labels=["spam", "benign"])


def test_as_many_rows_as_labels_are_needed():
    with pytest.raises(InputError, match="sot: not as many rows as the 6 labels"):
        quality(range(5), kept=[True] * 6)
