"""What `sot experiment` shows and writes of an experiment's table."""

import polars as pl

from sot_pipeline.cli.experiment import _show, _variations, _write

FACTS = {"num_rows": 48.0, "harmful_left": 0.25, "benign_lost": None, "refusals_lost": None}
VALUES = {
    ("lambda 0", 0.0, "harmfulness_score"): [0.4, 0.6],
    ("lambda 0", 0.0, "average"): [0.7, 0.7],
    ("lambda 0.5", 0.5, "harmfulness_score"): [0.0, 0.1],
    ("lambda 0.5", 0.5, "average"): [0.9, 1.0],
}


def document() -> tuple[pl.DataFrame, dict]:
    found = pl.DataFrame(
        [
            {"variation": name, "parameter": parameter, "seed": seed, "score": score,
             "value": value, "low": value, "high": value, **FACTS}
            for (name, parameter, score), values in VALUES.items()
            for seed, value in enumerate(values)
        ]
    )  # fmt: skip
    trend = {"verdict": "reproduced", "claim": "less harm", "found": "0.05 of 0.5"}
    return found, {
        "experiment": "lambda", "variations": _variations(found), "trends": [trend],
        "left_out": ["general_safe: not named"],
    }  # fmt: skip


def test_seeds_are_shown_as_mean_smallest_and_largest(capsys):
    _show(document()[1])
    shown = capsys.readouterr()
    assert "0.500 (0.400 … 0.600)" in shown.out
    assert "25.0%" in shown.out
    assert "reproduced" in shown.out
    assert "left out: general_safe" in shown.err


def test_tables_and_figures_are_written(tmp_path):
    paths = _write(tmp_path / "new" / "out", "lambda", *document())
    text = (tmp_path / "new" / "out" / "lambda.md").read_text()
    assert "| lambda 0.5 | 48 | 25.0% | 0.050 (0.000 … 0.100) |" in text
    assert "| reproduced | less harm | 0.05 of 0.5 |" in text
    assert "Left out: general_safe" in text
    assert any(path.endswith("lambda_pareto_average.png") for path in paths)
    assert pl.read_parquet(paths[0]).height == 8
