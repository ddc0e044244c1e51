"""The weights, how they were found, and a training's loss."""

import numpy as np

from sot_pipeline.report.figures.drawing import (
    COLOURS,
    Theme,
    figure_of,
    finite,
    font_size,
    png_of,
)
from sot_pipeline.report.numbers import cut_of, log10_relative_weights

_NUM_BINS = 60


def weight_histogram_png(
    log_weights: np.ndarray, kept: np.ndarray, *, width_px: int = 720, scale: float = 1,
    theme: Theme = "light",
) -> bytes:  # fmt: skip
    """How the weights are spread, and where the cut falls.

    Args:
        log_weights: `[rows]`, natural logs, any constant.
        kept: `[rows]` bool. If all rows are kept there is no cut to mark.
        width_px: Width on the page. At 400 or less the file stays below 20 kB.
        scale: Pixels per page pixel; 2 for sharp print and screens.
    """
    colours = COLOURS[theme]
    relative, kept = log10_relative_weights(log_weights), np.asarray(kept, dtype=bool)
    figure, (axes,) = figure_of(width_px, 0.42, colours)
    shown = finite(relative)
    low, high = float(shown.min()), float(shown.max())
    cut = cut_of(relative, kept)
    bins = _bins(low, max(high, low + 0.1), cut)
    axes.hist(
        [shown[~kept], shown[kept]], bins=bins.tolist(), stacked=True,
        color=[colours.removed, colours.kept], label=["removed", "kept"],
    )  # fmt: skip
    axes.axvline(0, color=colours.ink, linewidth=0.8, linestyle=(0, (1, 2)))
    if cut is not None:
        axes.axvline(cut, color=colours.ink, linewidth=1.4)
        axes.annotate(
            "cut", (cut, 1), xycoords=("data", "axes fraction"), xytext=(-4, -2), va="top",
            ha="right", textcoords="offset points", size=font_size(width_px), color=colours.ink,
        )  # fmt: skip
        axes.legend(
            frameon=False, labelcolor=colours.ink, loc="upper left", fontsize=font_size(width_px)
        )
    axes.set_xlabel("log₁₀ weight relative to uniform (0 = uniform)")
    axes.set_ylabel("rows")
    return png_of(figure, width_px, scale)


def weight_histogram_alt(log_weights: np.ndarray, kept: np.ndarray) -> str:
    """The histogram's numbers in one sentence."""
    relative, kept = log10_relative_weights(log_weights), np.asarray(kept, dtype=bool)
    shown = finite(relative)
    text = (
        f"Histogram of the log10 weight relative to uniform of {len(relative):,} rows, from "
        f"{shown.min():.2f} to {shown.max():.2f}."
    )
    for name, mask in (("kept", kept), ("removed", ~kept)):
        if mask.any():
            text += f" {mask.sum():,} {name}, median {np.median(shown[mask]):.2f}."
    cut = cut_of(relative, kept)
    return text + (f" The cut is at {cut:.2f}." if cut is not None else "")


def objective_trace_png(
    trace: np.ndarray, *, width_px: int = 720, scale: float = 1, theme: Theme = "light"
) -> bytes:
    """The objective (Eq. 5) at each step. `trace`: `[steps]`, at least one value."""
    colours = COLOURS[theme]
    trace = np.asarray(trace, dtype=np.float64)
    figure, (axes,) = figure_of(width_px, 0.32, colours)
    steps = np.arange(len(trace))
    axes.plot(steps, trace, color=colours.kept, linewidth=1.6)
    axes.plot(steps[-1:], trace[-1:], "o", color=colours.kept, markersize=5)
    axes.set_xlabel("step")
    axes.set_ylabel("objective (Eq. 5)")
    axes.margins(x=0.02, y=0.12)
    axes.ticklabel_format(axis="y", useOffset=False)
    return png_of(figure, width_px, scale)


def objective_trace_alt(trace: np.ndarray) -> str:
    """The trace's numbers in one sentence."""
    trace = np.asarray(trace, dtype=np.float64)
    return (
        f"Line of the objective over {len(trace):,} recorded values: {trace[0]:.5g} at first, "
        f"{trace[-1]:.5g} at last."
    )


def loss_trace_png(
    losses: np.ndarray, *, width_px: int = 720, scale: float = 1, theme: Theme = "light"
) -> bytes:
    """The training loss at each step, and its running mean. `losses`: `[steps]`, nats."""
    colours = COLOURS[theme]
    losses = np.asarray(losses, dtype=np.float64)
    figure, (axes,) = figure_of(width_px, 0.32, colours)
    steps, window = np.arange(1, len(losses) + 1), max(1, len(losses) // 20)
    mean = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    axes.plot(steps, losses, color=colours.faint, linewidth=0.8)
    axes.plot(steps[window - 1 :], mean, color=colours.kept, linewidth=1.6)
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss, nats (line: mean of {window} steps)")
    return png_of(figure, width_px, scale)


def _bins(low: float, high: float, cut: float | None) -> np.ndarray:
    """Edges of equal bins, one of them at the cut, so that no bin mixes kept and removed."""
    width = (high - low) / _NUM_BINS
    if cut is None:
        return np.linspace(low, high, _NUM_BINS + 1)
    first, last = np.floor((low - cut) / width), np.ceil((high - cut) / width)
    edges = cut + width * np.arange(first, last + 1)
    # rounding must leave no row outside
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return edges
