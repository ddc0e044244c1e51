"""Figures: the right size, small where promised, and said in words."""

import io

import numpy as np
import pytest
from PIL import Image

from sot_pipeline.report import figures
from sot_pipeline.report.embedding_map import embedding_map
from sot_pipeline.report.tables import SCORES
from sot_pipeline_tests.report import samples


def size_of(png: bytes) -> tuple[int, int]:
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return image.size


def weights(num_rows: int):
    log_weights = np.random.default_rng(1).normal(size=num_rows)
    return log_weights, log_weights > np.quantile(log_weights, 0.2)


def the_figures(num_rows: int):
    log_weights, kept = weights(num_rows)
    rng = np.random.default_rng(2)
    points = embedding_map(
        *(rng.normal(size=(n, 16)) + s for n, s in ((num_rows, 0), (900, 1), (800, -1)))
    )
    scores = samples.evaluation(samples.METHOD_SCORES, seeds=3)
    return {
        "histogram": lambda **o: figures.weight_histogram_png(log_weights, kept, **o),
        "trace": lambda **o: figures.objective_trace_png(np.exp(-np.arange(90) / 9), **o),
        "map": lambda **o: figures.embedding_map_png(points, log_weights, kept, **o),
        "scores": lambda **o: figures.scores_png(scores, SCORES, list(samples.METHOD_SCORES), **o),
    }


@pytest.mark.parametrize("name", ["histogram", "trace", "map", "scores"])
@pytest.mark.parametrize("num_rows", [200, 20_000])
def test_small_figures_stay_below_20_kb_at_the_width_asked_for(name, num_rows):
    for theme in ("light", "dark"):
        png = the_figures(num_rows)[name](width_px=400, theme=theme)
        assert size_of(png)[0] == 400
        assert len(png) <= 20_000


@pytest.mark.parametrize("name", ["histogram", "trace", "map", "scores"])
def test_figures_for_the_page_are_sharp_and_repeatable(name):
    draw = the_figures(500)[name]
    png = draw(width_px=700, scale=2)
    assert size_of(png)[0] == 1400
    assert png == draw(width_px=700, scale=2)
    assert len(png) < 400_000
    light, dark = (
        np.asarray(Image.open(io.BytesIO(draw(theme=t))).convert("L")) for t in ("light", "dark")
    )
    assert light.mean() > 200 > 100 > dark.mean()


@pytest.mark.parametrize(
    "log_weights",
    [[0.0], [1.0, 1.0, 1.0], [0.0, -np.inf, -2.0], [-900.0, 0.0, 900.0], [-1e-12, 0.0]],
)
@pytest.mark.parametrize("num_kept", [0, 1, 99])
def test_degenerate_weights_still_make_a_figure(log_weights, num_kept):
    log_weights = np.array(log_weights)
    kept = np.arange(len(log_weights)) >= len(log_weights) - num_kept
    size_of(figures.weight_histogram_png(log_weights, kept))
    assert figures.weight_histogram_alt(log_weights, kept)
    same = np.zeros((len(log_weights), 2))
    points = embedding_map(same, same, same)
    size_of(figures.embedding_map_png(points, log_weights, kept))


def test_a_trace_of_one_value_is_a_dot():
    size_of(figures.objective_trace_png(np.array([0.3])))
    assert "0.3 at first, 0.3 at last" in figures.objective_trace_alt(np.array([0.3]))


def test_the_bins_of_the_histogram_do_not_straddle_the_cut():
    edges = figures.weights._bins(-2.0, 1.0, -0.31)
    assert np.abs(edges + 0.31).min() < 1e-12
    assert edges[0] <= -2.0
    assert edges[-1] >= 1.0


def test_alternative_texts_hold_the_numbers():
    table = samples.ledger(4, 3, log_weight=np.log([0.4, 0.3, 0.2, 0.1]))
    alt = figures.weight_histogram_alt(table["log_weight"].to_numpy(), table["kept"].to_numpy())
    # relative to uniform (1/4): 1.6, 1.2, 0.8 kept and 0.4 removed; log10 = .20, .08, -.10, -.40
    assert "4 rows, from -0.40 to 0.20" in alt
    assert "3 kept, median 0.08. 1 removed, median -0.40." in alt
    assert "The cut is at -0.25." in alt
    text = figures.scores_alt(samples.evaluation(samples.METHOD_SCORES), SCORES, ["sot", "sft"])
    assert "HmS (lower is better): sot 0.100, sft 0.400" in text


def test_scores_that_could_not_be_measured_are_left_out():
    scores = samples.evaluation({"sot": {"accuracy": np.nan}, "sft": {"accuracy": 0.5}})
    heads = {"accuracy": SCORES["accuracy"]}
    size_of(figures.scores_png(scores, heads, ["sot", "sft"]))
    assert "(higher is better): sft 0.500." in figures.scores_alt(scores, heads, ["sot", "sft"])


def test_labels_of_unknown_origin_are_no_formulas():
    scores = samples.evaluation({"$\\frac{$ 模型 \u202e": samples.METHOD_SCORES["sot"]})
    size_of(figures.scores_png(scores, SCORES, scores["method"].unique().to_list()))
