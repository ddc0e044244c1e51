"""Whether an experiment shows what the paper reports."""

import polars as pl
import pytest

from sot_pipeline.report.trends import trends


def scores(values: dict[str, list[float]], score="harmfulness_score", **parameters) -> pl.DataFrame:
    rows = [
        (name, parameters.get(name.split(", ")[-1].replace(" ", "_")), seed, score, value)
        for name, found in values.items()
        for seed, value in enumerate(found)
    ]
    schema = {
        "variation": pl.String, "parameter": pl.Float64, "seed": pl.Int64, "score": pl.String,
        "value": pl.Float64,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def verdicts(experiment: str, table: pl.DataFrame) -> list[str]:
    return [trend.verdict for trend in trends(experiment, table)]


PAPER = {
    "sft": [0.42, 0.43],
    "top_k_only": [0.204, 0.206],
    "full": [0.196, 0.198],
    "swapped_harmful": [0.193, 0.195],
    "general_safe": [0.54, 0.55],
    "pull_only": [0.5, 0.5],
    "push_only": [0.3, 0.3],
}


def test_the_papers_own_ablation_reproduces_all_of_its_trends():
    assert set(verdicts("ablation", scores(PAPER))) == {"reproduced"}


def test_the_opposite_contradicts():
    turned = PAPER | {"top_k_only": [0.9, 0.9], "general_safe": [0.1, 0.1]}
    assert verdicts("ablation", scores(turned))[0] == "contradicted"
    assert verdicts("ablation", scores(turned))[4] == "contradicted"


def test_seeds_that_overlap_decide_nothing():
    near = PAPER | {"full": [0.19, 0.21]}
    assert verdicts("ablation", scores(near))[1] == "undecided"


def test_both_at_the_end_of_the_scale_decides_nothing():
    ended = PAPER | {"full": [0.0, 0.0], "top_k_only": [0.0, 0.0]}
    assert verdicts("ablation", scores(ended))[1] == "undecided"


def test_what_was_left_out_is_not_measured():
    without = {name: found for name, found in PAPER.items() if name != "swapped_harmful"}
    assert verdicts("ablation", scores(without))[3] == "not measured"


def lambdas(**points: tuple[float, float]) -> pl.DataFrame:
    names = {name: float(name.removeprefix("l").replace("_", ".")) for name in points}
    return pl.concat(
        [
            scores({name: [point[column]] for name, point in points.items()}, score, **names)
            for column, score in enumerate(("harmfulness_score", "average"))
        ]
    )


@pytest.mark.parametrize(
    ("own", "verdict"),
    [((0.2, 0.8), "reproduced"), ((0.4, 0.7), "contradicted"), ((0.3, 0.8), "undecided")],
)
def test_lambda_one_half_is_on_the_front_unless_another_beats_it(own, verdict):
    table = lambdas(l0=(0.3, 0.8), l0_5=own, l1=(0.3, 0.8))
    assert verdicts("lambda", table) == [verdict]


def sweep(**means: float) -> pl.DataFrame:
    parameters = {name: float(name.removeprefix("k")) / 10 for name in means}
    return scores({name: [mean] for name, mean in means.items()}, **parameters)


def test_less_harm_with_every_cut_is_the_papers_trend():
    assert verdicts("keep", sweep(k5=0.1, k8=0.3, k10=0.6)) == ["reproduced"]
    assert verdicts("keep", sweep(k5=0.6, k8=0.3, k10=0.1)) == ["contradicted"]
    assert verdicts("keep", sweep(k5=0.1, k8=0.7, k10=0.2)) == ["undecided"]
    assert verdicts("keep", sweep(k5=0.0, k10=0.0)) == ["undecided"]


def contamination(sft: dict[str, float], sot: dict[str, float]) -> pl.DataFrame:
    shares = {name: float(name.removeprefix("p")) / 100 for name in {**sft, **sot}}
    named = {f"sft, {name}": [value] for name, value in sft.items()}
    named |= {f"sot, {name}": [value] for name, value in sot.items()}
    return scores(named, **shares)


def test_harm_grows_with_the_harmful_share_and_stays_below_plain_training():
    table = contamination({"p0": 0.0, "p10": 0.5, "p30": 0.9}, {"p0": 0.0, "p10": 0.1, "p30": 0.4})
    assert verdicts("contamination", table) == ["reproduced", "reproduced"]
    table = contamination({"p0": 0.0, "p10": 0.5, "p30": 0.9}, {"p0": 0.0, "p10": 0.1, "p30": 0.9})
    assert verdicts("contamination", table) == ["reproduced", "undecided"]


def test_no_harm_on_either_side_decides_nothing():
    table = contamination({"p10": 0.0, "p30": 0.0}, {"p10": 0.0, "p30": 0.0})
    assert verdicts("contamination", table)[1] == "undecided"
