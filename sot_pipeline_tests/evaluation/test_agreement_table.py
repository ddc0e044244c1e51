"""Raters against people: by source and kind, on two scales, unreadable verdicts counted."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score

from sot_pipeline.evaluation.agreement_table import Rater, agreement_table, systems_table
from sot_pipeline.evaluation.labelled import read_labelled

NUM = 60


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    harmful = rng.random(NUM) < 0.4
    steps = ("1_full_compliance", "3_partial_refusal", "2_full_refusal")
    refusal = rng.integers(0, 3, NUM)
    second = np.where(rng.random(NUM) < 0.9, refusal, rng.integers(0, 3, NUM))
    first_set = np.arange(NUM) < NUM // 2
    wrong = rng.random(NUM) < 0.2
    path = tmp_path / "rows.parquet"
    pl.DataFrame(
        {
            "prompt": ["p"] * NUM,
            "response": ["a"] * NUM,
            "source": np.where(first_set, "one", "two").tolist(),
            "model": [f"m{i % 3}" for i in range(NUM)],
            "human_is_harmful": [bool(h) if f else None for h, f in zip(harmful, first_set)],  # noqa: B905
            "human_is_refusal": [None if f else r > 0 for r, f in zip(refusal, first_set)],  # noqa: B905
            "human_final": [None if f else steps[r] for r, f in zip(refusal, first_set)],  # noqa: B905
            "human_1": [None if f else steps[r] for r, f in zip(refusal, first_set)],  # noqa: B905
            "human_2": [None if f else steps[r] for r, f in zip(second, first_set)],  # noqa: B905
            "judge_old": [
                (None if i == 3 else "harmful" if h ^ w else "harmless") if f else None
                for i, (h, w, f) in enumerate(zip(harmful, wrong, first_set))  # noqa: B905
            ],
        },
        strict=False,
    ).write_parquet(path)
    return read_labelled(path)


def lines(table, **wanted):
    return table.filter(**wanted).to_dicts()


def test_published_verdicts_against_the_label(file):
    [line] = lines(agreement_table(file, []), source="one", kind="harm", rater="old")
    truth, found = (
        file.of_source("one").truth("harm"),
        file.of_source("one").read("judge_old", "harm"),
    )
    both = ~np.isnan(found)
    assert (line["num_rows"], line["num_unreadable"]) == (NUM // 2, 1)
    assert line["kappa"] == pytest.approx(cohen_kappa_score(truth[both], found[both]))
    assert line["kappa_low"] < line["kappa"] < line["kappa_high"]
    assert line["precision"] == pytest.approx(truth[both & (found == 1)].mean())
    assert line["recall"] == pytest.approx(found[both & (truth == 1)].mean())


def test_people_among_themselves_are_lines_of_their_own_on_both_scales(file):
    found = lines(agreement_table(file, []), rater="human_1 and human_2")
    assert [line["scale"] for line in found] == ["yes/no", "graded"]
    one, other = (file.of_source("two").read(name, "refusal") for name in ("human_1", "human_2"))
    weighted = cohen_kappa_score(2 * one, 2 * other, weights="quadratic")
    assert found[1]["kappa"] == pytest.approx(weighted)
    assert found[0]["kappa"] == pytest.approx(cohen_kappa_score(one >= 0.5, other >= 0.5))


def test_a_rater_is_compared_where_there_are_labels_and_only_there(file):
    perfect = Rater("perfect", {"harm": file.truth("harm"), "refusal": file.truth("refusal")})
    table = agreement_table(file, [perfect])
    found = lines(table, rater="perfect", scale="yes/no")
    assert [(line["source"], line["kind"], line["num_rows"]) for line in found] == [
        ("one", "harm", NUM // 2), ("two", "refusal", NUM // 2)
    ]  # fmt: skip
    assert all(line["kappa"] == line["ac1"] == line["alpha"] == 1 for line in found)
    harm_only = Rater("harm only", {"harm": file.truth("harm")})
    assert {
        line["kind"] for line in lines(agreement_table(file, [harm_only]), rater="harm only")
    } == {"harm"}


def test_a_harm_verdict_counts_from_three_quarters_and_a_probability_from_its_own_threshold(file):
    verdicts = {"harm": np.where(file.truth("harm") == 1, 0.6, 0.1)}
    graded, probability = Rater("graded", verdicts), Rater("probability", verdicts, 0.5, True)
    table = agreement_table(file, [graded, probability])
    assert lines(table, rater="graded")[0]["recall"] == 0
    assert lines(table, rater="probability")[0]["recall"] == 1


def test_a_probability_is_compared_with_grades_by_rank_alone(file):
    noisy = np.clip(file.grades("refusal") * 0.8 + np.linspace(0, 0.2, NUM), 0, 1)
    rater = Rater("p", {"refusal": noisy}, 0.5, continuous=True)
    [line] = lines(agreement_table(file, [rater]), rater="p", scale="graded")
    assert line["spearman"] > 0.8
    assert line["kappa"] is None
    assert line["accuracy"] is None


def test_unreadable_verdicts_are_counted_and_not_scored(file):
    verdicts = file.truth("harm").copy()
    verdicts[:5] = np.nan
    [line] = lines(agreement_table(file, [Rater("r", {"harm": verdicts})]), rater="r")
    assert line["num_unreadable"] == 5
    assert line["accuracy"] == 1


def test_a_rater_that_read_nothing_has_no_figures(file):
    nothing = Rater("r", {"harm": np.full(NUM, np.nan)})
    [line] = lines(agreement_table(file, [nothing]), rater="r")
    assert line["num_unreadable"] == NUM // 2
    assert line["kappa"] is None


def test_the_ranking_of_models_is_compared_too(file):
    flipped = {"harm": 1 - file.truth("harm")}
    table = systems_table(
        file, [Rater("same", {"harm": file.truth("harm")}), Rater("flipped", flipped)]
    )
    [same] = lines(table, rater="same")
    [other] = lines(table, rater="flipped")
    assert (same["num_models"], same["lowest_difference"], same["highest_difference"]) == (3, 0, 0)
    assert same["tau"] == pytest.approx(-other["tau"])
