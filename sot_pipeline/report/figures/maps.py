"""Where the three sets lie."""

import numpy as np

from sot_pipeline.report.embedding_map import EmbeddingMap
from sot_pipeline.report.figures.drawing import (
    COLOURS,
    SMALL_PX,
    Theme,
    figure_of,
    finite,
    font_size,
    png_of,
)
from sot_pipeline.report.numbers import cut_of, log10_relative_weights

_MAX_POINTS = {True: 1_200, False: 12_000}  # drawn; small figures fewer
_MAX_REFERENCE_POINTS = {True: 60, False: 250}


def embedding_map_png(
    points: EmbeddingMap, log_weights: np.ndarray, kept: np.ndarray, *, width_px: int = 720,
    scale: float = 1, theme: Theme = "light", towards_harm: bool = True,
) -> bytes:  # fmt: skip
    """Where the three sets lie: custom rows coloured and sized by weight, references muted.

    `towards_harm`: the horizontal axis is that of `embedding_map`; else no axis has a meaning.
    Colours turn at the cut; without one all are those of kept rows. Of larger sets an even
    sample is drawn.
    """
    from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

    colours = COLOURS[theme]
    relative, kept = log10_relative_weights(log_weights), np.asarray(kept, dtype=bool)
    figure, (axes,) = figure_of(width_px, 0.62, colours)
    small = width_px <= SMALL_PX
    size = 5 if small else 12
    shown = finite(relative)
    cut = cut_of(relative, kept)
    middle = float(shown.min()) if cut is None else cut
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
    for name, marker, colour in (("safe", "s", colours.safe), ("harmful", "x", colours.harmful)):
        xy = _drawn(getattr(points, name), small, _MAX_REFERENCE_POINTS)
        edge = {"facecolors": "none", "edgecolors": colour} if marker == "s" else {"color": colour}
        axes.scatter(
            *xy.T, s=2 * size, marker=marker, linewidths=0.8, alpha=0.55, zorder=3,
            label=f"{name} reference", **edge,
        )  # fmt: skip
    bar = figure.colorbar(marks, ax=axes, fraction=0.035, pad=0.02)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(colors=colours.ink, length=0, labelsize=font_size(width_px) - 1)
    bar.set_label("log₁₀ weight relative to uniform", color=colours.ink, size=font_size(width_px))
    legend = axes.legend(
        frameon=False, labelcolor=colours.ink, loc="best", fontsize=font_size(width_px)
    )
    for handle in legend.legend_handles:
        handle.set_alpha(1)  # pyright: ignore[reportOptionalMemberAccess]
    axes.set_yticks([])
    if towards_harm:
        axes.set_xlabel("← safe centroid      harmful centroid →")
        axes.set_ylabel("main direction of the rest")
    else:
        axes.set_xticks([])
        axes.set_xlabel("near = alike; the directions have no meaning")
    axes.grid(False)
    return png_of(figure, width_px, scale)


def embedding_map_alt(
    points: EmbeddingMap, log_weights: np.ndarray, kept: np.ndarray, *, towards_harm: bool = True
) -> str:
    """The map's numbers in a few sentences."""
    kept = np.asarray(kept, dtype=bool)
    if not towards_harm:
        return _neighbourhoods_alt(points, kept)
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


def _neighbourhoods_alt(points: EmbeddingMap, kept: np.ndarray) -> str:
    from scipy.spatial import KDTree

    to_safe, to_harmful = (
        KDTree(reference).query(points.custom)[0] for reference in (points.safe, points.harmful)
    )
    shares = ", ".join(
        f"{name} {np.mean(to_harmful[mask] < to_safe[mask]):.0%} of {mask.sum():,} rows"
        for name, mask in (("kept custom", kept), ("removed custom", ~kept))
        if mask.any()
    )
    return (
        "Map of neighbourhoods of the embeddings (t-SNE), where near means alike. Rows drawn nearer "
        f"to a harmful than to a safe reference row: {shares}."
    )


def _drawn(rows: np.ndarray, small: bool, most: dict[bool, int] = _MAX_POINTS) -> np.ndarray:
    step = -(-len(rows) // most[small]) or 1
    return rows[::step]
