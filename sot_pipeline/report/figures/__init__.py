"""Figures as PNG files, light or dark, and the sentences that stand in for them."""

from sot_pipeline.report.figures.maps import embedding_map_alt, embedding_map_png
from sot_pipeline.report.figures.scores import pareto_alt, pareto_png, scores_alt, scores_png
from sot_pipeline.report.figures.weights import (
    loss_trace_png,
    objective_trace_alt,
    objective_trace_png,
    weight_histogram_alt,
    weight_histogram_png,
)

__all__ = [
    "embedding_map_alt",
    "embedding_map_png",
    "loss_trace_png",
    "objective_trace_alt",
    "objective_trace_png",
    "pareto_alt",
    "pareto_png",
    "scores_alt",
    "scores_png",
    "weight_histogram_alt",
    "weight_histogram_png",
]
