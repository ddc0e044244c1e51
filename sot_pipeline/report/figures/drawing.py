"""What the figures have in common: colours, size, type, and a small PNG.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
matplotlib is imported inside the functions: Dagster's assets use the small variants
(`width_px` up to 400), and loading the asset graph must stay quick.
"""

import io
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

Theme = Literal["light", "dark"]
SMALL_PX = 400
_DPI = 100


class Colours(NamedTuple):
    paper: str
    ink: str
    faint: str
    kept: str
    removed: str
    safe: str
    harmful: str
    middle: str


COLOURS: dict[str, Colours] = {
    "light": Colours(
        "#ffffff", "#33373d", "#d9dce1", "#0072b2", "#d55e00", "#009e73", "#a0527d", "#d4d4d4"
    ),
    "dark": Colours(
        "#1b1e24", "#c9ced6", "#3a3f48", "#56b4e9", "#f0883e", "#2fbf91", "#d98bb5", "#6b7079"
    ),
}


def figure_of(
    width_px: int, height_share: float, colours: Colours, num_panels: int = 1
) -> tuple["Figure", list["Axes"]]:
    """A figure and the axes of its panels, side by side, without global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if width_px <= SMALL_PX:
        height_share = max(height_share, 0.5)
    size = (width_px / _DPI, width_px * height_share / _DPI)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained", facecolor=colours.paper)
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, num_panels, squeeze=False, sharey=num_panels > 1)[0]
    font = font_size(width_px)
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


def png_of(figure: "Figure", width_px: int, scale: float) -> bytes:
    """Rendered and reduced to a palette: a third of the size, no visible loss."""
    from PIL import Image

    figure.set_dpi(_DPI * scale)
    canvas = cast("FigureCanvasAgg", figure.canvas)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
    colours = 128 if width_px <= SMALL_PX else 256
    image = image.quantize(colours, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


def font_size(width_px: int) -> float:
    return 6.5 if width_px <= SMALL_PX else 9


def plain(label: str) -> str:
    """A label that no font lacks and no formula parser takes for mathematics."""
    return label.encode("ascii", "replace").decode().replace("$", "?")[:30]


def finite(relative: np.ndarray) -> np.ndarray:
    """-inf (weight 0) drawn half a decade below the lowest finite value."""
    finite = relative[np.isfinite(relative)]
    return np.where(np.isfinite(relative), relative, finite.min() - 0.5)
