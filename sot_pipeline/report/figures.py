"""Figures as PNG files, light or dark, and the sentences that stand in for them.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
matplotlib is imported inside the functions: Dagster's assets use the small variants
(`width_px` up to 400), and loading the asset graph must stay quick.
"""

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np
import polars as pl

from sot_pipeline.report.embedding_map import EmbeddingMap, embedding_map
from sot_pipeline.report.numbers import cut_of, log10_relative_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from sot_pipeline.report.comparison import ParetoPoint

__all__ = [
    "embedding_map",
    "embedding_map_alt",
    "embedding_map_png",
    "objective_trace_alt",
    "objective_trace_png",
    "pareto_alt",
    "pareto_png",
    "scores_alt",
    "scores_png",
    "weight_histogram_alt",
    "weight_histogram_png",
]

Theme = Literal["light", "dark"]
_DPI = 100
_SMALL_PX = 400
_MAX_POINTS = {True: 1_200, False: 12_000}  # drawn; small figures fewer
_MAX_REFERENCE_POINTS = {True: 60, False: 250}
_NUM_BINS = 60
_PANEL_PX = 130


class _Colours(NamedTuple):
    paper: str
    ink: str
    faint: str
    kept: str
    removed: str
    safe: str
    harmful: str
    middle: str


_COLOURS: dict[str, _Colours] = {
    "light": _Colours(
        "#ffffff", "#33373d", "#d9dce1", "#0072b2", "#d55e00", "#009e73", "#a0527d", "#d4d4d4"
    ),
    "dark": _Colours(
        "#1b1e24", "#c9ced6", "#3a3f48", "#56b4e9", "#f0883e", "#2fbf91", "#d98bb5", "#6b7079"
    ),
}


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
    colours = _COLOURS[theme]
    relative, kept = log10_relative_weights(log_weights), np.asarray(kept, dtype=bool)
    figure, (axes,) = _figure(width_px, 0.42, colours)
    shown = _finite(relative)
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
            ha="right", textcoords="offset points", size=_font(width_px), color=colours.ink,
        )  # fmt: skip
        axes.legend(
            frameon=False, labelcolor=colours.ink, loc="upper left", fontsize=_font(width_px)
        )
    axes.set_xlabel("log₁₀ weight relative to uniform (0 = uniform)")
    axes.set_ylabel("rows")
    return _png(figure, width_px, scale)


def weight_histogram_alt(log_weights: np.ndarray, kept: np.ndarray) -> str:
    """The histogram's numbers in one sentence."""
    relative, kept = log10_relative_weights(log_weights), np.asarray(kept, dtype=bool)
    finite = _finite(relative)
    text = (
        f"Histogram of the log10 weight relative to uniform of {len(relative):,} rows, from "
        f"{finite.min():.2f} to {finite.max():.2f}."
    )
    for name, mask in (("kept", kept), ("removed", ~kept)):
        if mask.any():
            text += f" {mask.sum():,} {name}, median {np.median(finite[mask]):.2f}."
    cut = cut_of(relative, kept)
    return text + (f" The cut is at {cut:.2f}." if cut is not None else "")


def objective_trace_png(
    trace: np.ndarray, *, width_px: int = 720, scale: float = 1, theme: Theme = "light"
) -> bytes:
    """The objective (Eq. 5) at each step. `trace`: `[steps]`, at least one value."""
    colours = _COLOURS[theme]
    trace = np.asarray(trace, dtype=np.float64)
    figure, (axes,) = _figure(width_px, 0.32, colours)
    steps = np.arange(len(trace))
    axes.plot(steps, trace, color=colours.kept, linewidth=1.6)
    axes.plot(steps[-1:], trace[-1:], "o", color=colours.kept, markersize=5)
    axes.set_xlabel("step")
    axes.set_ylabel("objective (Eq. 5)")
    axes.margins(x=0.02, y=0.12)
    axes.ticklabel_format(axis="y", useOffset=False)
    return _png(figure, width_px, scale)


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
    colours = _COLOURS[theme]
    losses = np.asarray(losses, dtype=np.float64)
    figure, (axes,) = _figure(width_px, 0.32, colours)
    steps, window = np.arange(1, len(losses) + 1), max(1, len(losses) // 20)
    mean = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    axes.plot(steps, losses, color=colours.faint, linewidth=0.8)
    axes.plot(steps[window - 1 :], mean, color=colours.kept, linewidth=1.6)
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss, nats (line: mean of {window} steps)")
    return _png(figure, width_px, scale)


def embedding_map_png(
    points: EmbeddingMap, log_weights: np.ndarray, kept: np.ndarray, *, width_px: int = 720,
    scale: float = 1, theme: Theme = "light",
) -> bytes:  # fmt: skip
    """Where the three sets lie: custom rows coloured and sized by weight, references muted.

    Colours turn at the cut (or at the uniform weight, without a cut). Of larger sets an even
    sample is drawn.
    """
    from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

    colours = _COLOURS[theme]
    relative, kept = log10_relative_weights(log_weights), np.asarray(kept, dtype=bool)
    figure, (axes,) = _figure(width_px, 0.62, colours)
    small = width_px <= _SMALL_PX
    size = 5 if small else 12
    shown = _finite(relative)
    middle = cut_of(relative, kept) or 0.0
    low, high = np.quantile(shown, [0.01, 0.99])
    drawn = _drawn(np.column_stack([points.custom, shown]), small)
    drawn = drawn[np.argsort(drawn[:, 2])[::-1]]  # light rows on top: they are the news
    marks = axes.scatter(
        drawn[:, 0], drawn[:, 1], c=drawn[:, 2], zorder=2, linewidths=0, alpha=0.8,
        s=size * np.clip(10.0 ** (drawn[:, 2] / 2), 0.5, 3),
        norm=TwoSlopeNorm(middle, min(low, middle - 0.1), max(high, middle + 0.1)),
        cmap=LinearSegmentedColormap.from_list(
            "cut", [colours.removed, colours.middle, colours.kept]
        ),
    )  # fmt: skip
    for name, marker, colour in (("safe", "o", colours.safe), ("harmful", "x", colours.harmful)):
        xy = _drawn(getattr(points, name), small, _MAX_REFERENCE_POINTS)
        edge = {"facecolors": "none", "edgecolors": colour} if marker == "o" else {"color": colour}
        axes.scatter(
            *xy.T, s=2 * size, marker=marker, linewidths=0.8, alpha=0.55, zorder=3,
            label=f"{name} reference", **edge,
        )  # fmt: skip
    bar = figure.colorbar(marks, ax=axes, fraction=0.035, pad=0.02)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(colors=colours.ink, length=0, labelsize=_font(width_px) - 1)
    bar.set_label("log₁₀ weight relative to uniform", color=colours.ink, size=_font(width_px))
    legend = axes.legend(
        frameon=False, labelcolor=colours.ink, loc="best", fontsize=_font(width_px)
    )
    for handle in legend.legend_handles:
        handle.set_alpha(1)  # pyright: ignore[reportOptionalMemberAccess]
    axes.set_yticks([])
    axes.set_xlabel("← safe centroid      harmful centroid →")
    axes.set_ylabel("main direction of the rest")
    axes.grid(False)
    return _png(figure, width_px, scale)


def embedding_map_alt(points: EmbeddingMap, log_weights: np.ndarray, kept: np.ndarray) -> str:
    """The map's numbers in a few sentences."""
    kept = np.asarray(kept, dtype=bool)
    groups = {
        "safe reference": points.safe,
        "harmful reference": points.harmful,
        "kept custom": points.custom[kept],
        "removed custom": points.custom[~kept],
    }
    means = ", ".join(
        f"{name} {xy[:, 0].mean():+.2f} ({len(xy):,} rows)"
        for name, xy in groups.items()
        if len(xy)
    )
    return (
        "Map of the embeddings. The horizontal axis runs from the safe centroid (left) to the "
        f"harmful one (right), 0 half way. Mean horizontal position: {means}."
    )


def scores_png(
    evaluation: pl.DataFrame, heads: dict[str, tuple[str, str, str]], methods: list[str], *,
    own: str = "sot", width_px: int = 720, scale: float = 1, theme: Theme = "light",
) -> bytes:  # fmt: skip
    """Each score of each method with its interval, one panel per score.

    Args:
        evaluation: `method, seed, score, value, low, high`.
        heads: Score -> (short name, long name, which way is better), for the panels; the first
            ones that the width has room for.
        methods: From top to bottom.
        own: The one to stand out.
    """
    colours = _COLOURS[theme]
    height = (56 + 30 * len(methods)) / width_px
    heads = dict(list(heads.items())[: max(1, width_px // _PANEL_PX)])
    figure, panels = _figure(width_px, height, colours, num_panels=len(heads))
    for axes, (score, (short, _, better)) in zip(panels, heads.items(), strict=True):
        for place, method in enumerate(reversed(methods)):
            rows = evaluation.filter((pl.col("method") == method) & (pl.col("score") == score))
            colour = colours.kept if method == own else colours.ink
            rows = _known(rows).sort("seed")
            for y, row in zip(_spread(place, len(rows)), rows.iter_rows(named=True), strict=True):
                if row["low"] is not None and row["high"] is not None:
                    axes.plot([row["low"], row["high"]], [y, y], color=colour, alpha=0.55, lw=1.2)
                axes.plot(row["value"], y, "o", color=colour, markersize=4)
        arrow = {"lower": "← better", "higher": "better →"}.get(better, "")
        axes.set_title(f"{_plain(short)}   {arrow}", size=_font(width_px), color=colours.ink)
        axes.set_ylim(-0.6, len(methods) - 0.4)
        axes.set_yticks(range(len(methods)), [_plain(m) for m in reversed(methods)])
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.12)
    return _png(figure, width_px, scale)


def scores_alt(
    evaluation: pl.DataFrame, heads: dict[str, tuple[str, str, str]], methods: list[str]
) -> str:
    """The scores of the figure, in words."""
    parts = []
    for score, (short, _, better) in heads.items():
        values = [
            f"{method} {np.mean(rows['value'].to_numpy()):.3f}"
            for method in methods
            if len(
                rows := _known(
                    evaluation.filter((pl.col("method") == method) & (pl.col("score") == score))
                )
            )
        ]
        parts.append(f"{short} ({better} is better): {', '.join(values)}")
    return "Scores with their intervals. " + "; ".join(parts) + "."


def pareto_png(
    points: Sequence["ParetoPoint"], x_label: str, y_label: str, *, y_falls: bool = False,
    own: str = "sot", width_px: int = 720, scale: float = 1, theme: Theme = "light",
) -> bytes:  # fmt: skip
    """Harm against usefulness, a point per method with its limits; the methods that none beats
    are joined by a line. Better is always up and left.

    Args:
        points: As `comparison.pareto` returns them, one or more.
        y_falls: The less of `y` the better: its axis is turned round.
        own: The one to stand out.
    """
    colours = _COLOURS[theme]
    figure, (axes,) = _figure(width_px, 0.62, colours)
    for point in points:
        colour = colours.kept if point.method == own else colours.ink
        for limits, across in ((point.x, True), (point.y, False)):
            ends = [limits.low, limits.high]
            line = (ends, [point.y.value] * 2) if across else ([point.x.value] * 2, ends)
            axes.plot(*line, color=colour, alpha=0.3, lw=1)
        filled = colour if point.is_best else colours.paper
        axes.plot(point.x.value, point.y.value, "o", color=colour, mfc=filled, markersize=5)
    best = sorted((p.x.value, p.y.value) for p in points if p.is_best)
    axes.plot(*zip(*best, strict=True), color=colours.kept, lw=1.2, ls=":", zorder=1)
    for (x, y), methods in _places(points).items():
        names = (_plain(method).replace(" ", "\u00a0") for method in methods)  # not broken
        text = textwrap.fill(", ".join(names), 34)
        axes.annotate(
            text, (x, y), xytext=(7, 4), textcoords="offset points", size=_font(width_px) - 1,
            color=colours.ink, va="bottom",
        )  # fmt: skip
    axes.set_xlabel(f"{x_label}   ← better")
    axes.set_ylabel(f"{y_label}   better →")
    axes.margins(x=0.12, y=0.12)
    if y_falls:
        axes.invert_yaxis()
    return _png(figure, width_px, scale)


def pareto_alt(points: Sequence["ParetoPoint"], x_label: str, y_label: str) -> str:
    """The points of the figure, in words."""
    told = [f"{p.method} {p.x.value:.3f}, {p.y.value:.3f}" for p in points]
    best = ", ".join(p.method for p in points if p.is_best)
    return f"{x_label} and {y_label} of each method: {'; '.join(told)}. Not beaten: {best}."


def _places(points: Sequence["ParetoPoint"]) -> dict[tuple[float, float], list[str]]:
    """Methods that would stand on each other share a label."""
    wide, high = (
        max(values) - min(values) or 1.0
        for values in ([p.x.value for p in points], [p.y.value for p in points])
    )
    places: dict[tuple[float, float], list[str]] = {}
    for point in points:
        near = next(
            (
                (x, y)
                for x, y in places
                if abs(x - point.x.value) < 0.03 * wide and abs(y - point.y.value) < 0.05 * high
            ),
            (point.x.value, point.y.value),
        )
        places.setdefault(near, []).append(point.method)
    return places


def _finite(relative: np.ndarray) -> np.ndarray:
    """-inf (weight 0) drawn half a decade below the lowest finite value."""
    finite = relative[np.isfinite(relative)]
    return np.where(np.isfinite(relative), relative, finite.min() - 0.5)


def _bins(low: float, high: float, cut: float | None) -> np.ndarray:
    """Edges of equal bins, one of them at the cut, so that no bin mixes kept and removed."""
    width = (high - low) / _NUM_BINS
    if cut is None:
        return np.linspace(low, high, _NUM_BINS + 1)
    first, last = np.floor((low - cut) / width), np.ceil((high - cut) / width)
    return cut + width * np.arange(first, last + 1)


def _drawn(rows: np.ndarray, small: bool, most: dict[bool, int] = _MAX_POINTS) -> np.ndarray:
    step = -(-len(rows) // most[small]) or 1
    return rows[::step]


def _known(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("value").cast(pl.Float64).is_finite())  # null is not, either


def _spread(place: float, count: int) -> np.ndarray:
    """Heights of the seeds of one method, close to `place`."""
    return place + (np.linspace(0.24, -0.24, count) if count != 1 else np.zeros(1))


def _plain(label: str) -> str:
    """A label that no font lacks and no formula parser takes for mathematics."""
    return label.encode("ascii", "replace").decode().replace("$", "?")[:30]


def _font(width_px: int) -> float:
    return 6.5 if width_px <= _SMALL_PX else 9


def _figure(
    width_px: int, height_share: float, colours: _Colours, num_panels: int = 1
) -> tuple["Figure", list["Axes"]]:
    """A figure and the axes of its panels, side by side, without global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if width_px <= _SMALL_PX:
        height_share = max(height_share, 0.5)
    size = (width_px / _DPI, width_px * height_share / _DPI)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained", facecolor=colours.paper)
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, num_panels, squeeze=False, sharey=num_panels > 1)[0]
    font = _font(width_px)
    for axes in grid:
        axes.set_facecolor(colours.paper)
        axes.tick_params(colors=colours.ink, labelsize=font, length=0)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_size(font)
            label.set_color(colours.ink)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(colours.faint)
        axes.grid(color=colours.faint, linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, list(grid)


def _png(figure: "Figure", width_px: int, scale: float) -> bytes:
    """Rendered and reduced to a palette: a third of the size, no visible loss."""
    from PIL import Image

    figure.set_dpi(_DPI * scale)
    canvas = cast("FigureCanvasAgg", figure.canvas)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
    colours = 128 if width_px <= _SMALL_PX else 256
    image = image.quantize(colours, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()
