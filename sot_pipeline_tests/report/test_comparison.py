"""A line per compared method, and the methods that none beats."""

import polars as pl
import pytest

from sot_pipeline.report.comparison import (
    NO_QUALITY,
    NO_SCORES,
    Line,
    Measured,
    lines,
    markdown,
    pareto,
    table,
)


def quality(*rows: tuple) -> pl.DataFrame:
    filled = [(*row[:3], row[3], row[3] - 0.1, row[3] + 0.1, -0.2, -0.3, -0.1) for row in rows]
    return pl.DataFrame(filled, schema=NO_QUALITY, orient="row")


def scores(*rows: tuple[str, int, str, float]) -> pl.DataFrame:
    filled = [(*row, row[3] - 0.05, row[3] + 0.05, 10.0 + row[1], 2e9) for row in rows]
    return pl.DataFrame(filled, schema=NO_SCORES, orient="row")


def measured(value: float) -> Measured:
    return Measured(value, value, value)


def test_quality_costs_and_scores_of_a_method_stand_in_one_line():
    (line,) = lines(
        quality(("knn", "all", "auroc", 0.9)),
        scores(("knn", 0, "harmfulness_score", 0.2)),
        {"knn": {"seconds": 3.0, "peak_memory_bytes": None, "removed_in_common": 0.5}},
    )
    assert line.quality["auroc"] == pytest.approx((0.9, 0.8, 1.0))
    assert line.difference["auroc"] == (-0.2, -0.3, -0.1)
    assert line.scores["harmfulness_score"] == pytest.approx((0.2, 0.15, 0.25))
    assert line.costs == {
        "removed_in_common": 0.5, "select_seconds": 3.0, "seconds": 10.0, "peak_memory_bytes": 2e9
    }  # fmt: skip


def test_several_seeds_give_their_mean_smallest_and_largest():
    found = scores(("sft", 0, "accuracy", 0.5), ("sft", 1, "accuracy", 0.9))
    (line,) = lines(pl.DataFrame(schema=NO_QUALITY), found, {})
    assert line.scores["accuracy"] == pytest.approx((0.7, 0.5, 0.9))
    assert line.costs["seconds"] == 10.5


def test_a_defence_has_the_quality_of_its_selection():
    found = lines(
        quality(("sot", "all", "auroc", 0.9)), scores(("sot+spf", 0, "accuracy", 1.0)), {}
    )
    assert [line.method for line in found] == ["sot", "sot+spf"]
    assert found[0].quality == found[1].quality


def test_a_source_is_shown_alone():
    rows = quality(("sot", "all", "auroc", 0.9), ("sot", "foreign", "auroc", 0.7))
    (line,) = lines(rows, pl.DataFrame(schema=NO_SCORES), {}, "foreign")
    assert line.quality["auroc"].value == 0.7


def test_without_labels_and_training_the_selections_are_still_listed():
    nothing = pl.DataFrame(schema=NO_QUALITY), pl.DataFrame(schema=NO_SCORES)
    found = lines(*nothing, {"sot": {"seconds": 1.0}, "knn": {"removed_in_common": 0.25}})
    assert table(found) == (
        ["method", "removed as sot", "select s"],
        [["knn", "25%", "–"], ["sot", "–", "1.00"]],
    )


def test_markdown_has_a_dash_where_nothing_was_measured():
    found = lines(quality(("sot", "all", "auroc", 0.9)), scores(("sft", 0, "accuracy", 0.5)), {})
    assert markdown(found, intervals=False).splitlines()[2:] == [
        "| sft | – | 0.500 | 10 | 2,000 |",
        "| sot | 0.900 | – | – | – |",
    ]


def points(**values: tuple[float, float]) -> dict[str, bool]:
    found = [
        Line(name, {}, {}, {"harmfulness_score": measured(x), "average": measured(y)}, {})
        for name, (x, y) in values.items()
    ]
    return {point.method: point.is_best for point in pareto(found)}


def test_a_method_is_beaten_by_one_that_is_no_worse_in_both_and_better_in_one():
    assert points(sft=(0.9, 0.9), sot=(0.1, 0.9), knn=(0.1, 0.8), random=(0.8, 1.0)) == {
        "sft": False, "sot": True, "knn": False, "random": True,
    }  # fmt: skip


def test_equal_methods_do_not_beat_each_other():
    assert points(sot=(0.1, 0.9), knn=(0.1, 0.9)) == {"sot": True, "knn": True}


def test_methods_that_were_given_the_truth_beat_nobody():
    assert points(sft_clean=(0.0, 1.0), sot=(0.1, 0.9)) == {"sft_clean": True, "sot": True}


def test_where_less_is_better_a_lower_one_beats():
    found = [
        Line(name, {}, {}, {"harmfulness_score": measured(0.1), "task_loss": measured(loss)}, {})
        for name, loss in (("sot", 0.01), ("knn", 0.02))
    ]
    assert [point.is_best for point in pareto(found, y="task_loss")] == [True, False]
