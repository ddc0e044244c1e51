"""How a row can be disguised by padding, and what looks under the disguise.

Pure helpers of `bench_attacks.py`. Lengths are in characters, so that text without spaces counts.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int

Place = Literal["before", "after", "around", "interleaved"]
PLACES: tuple[Place, ...] = get_args(Place)
VISIBLE = 1_150  # characters that fill the 256 tokens of all-MiniLM-L6-v2, English text
WINDOW = 300  # characters, some 65 tokens of English text
_PIECE = 100  # characters of the row between two pieces of interleaved padding


def cut(text: str, size: int) -> tuple[str, str]:
    """The start of a text, at most `size` characters, and the rest; at a space where one is near.

    Joined, the two are the text: nothing is lost.
    """
    if len(text) <= size:
        return text, ""
    space = text.rfind(" ", size // 2, size)
    end = size if space < 0 else space + 1
    return text[:end], text[end:]


def pieces(text: str, size: int) -> list[str]:
    """The text in pieces of at most `size` characters; joined they are the text."""
    if size < 1:
        raise ValueError(f"size is {size}; expected at least one character")
    found = []
    while text:
        piece, text = cut(text, size)
        found.append(piece)
    return found or [""]


def windows(text: str, size: int = WINDOW) -> list[str]:
    """Pieces that hold text, at least one; a short text is its own window."""
    return [piece for piece in pieces(text, size) if piece.strip()] or [text]


def padded(text: str, pad: str, budget: float, place: Place) -> str:
    """A text with the first `budget * len(text)` characters of a pad around it.

    "around" puts half of the padding at each end; "interleaved" puts the row's share of it behind
    every hundred characters, so that no window is free of it.
    """
    pad = cut(pad, max(1, round(budget * len(text))))[0].strip()
    if place == "before":
        return f"{pad}\n\n{text}"
    if place == "after":
        return f"{text}\n\n{pad}"
    if place == "around":
        first, rest = cut(pad, max(1, len(pad) // 2))
        return f"{first.strip()}\n\n{text}\n\n{rest.strip()}"
    own = pieces(text, _PIECE)
    filler = pieces(pad, max(1, -(-len(pad) // len(own))))
    filler += [""] * (len(own) - len(filler))
    mixed = [part.strip() for pair in zip(own, filler, strict=False) for part in pair]
    mixed += [part.strip() for part in filler[len(own) :]]
    return " ".join(part for part in mixed if part)


class Seen(NamedTuple):
    """Characters that an encoder reads of a padded row."""

    of_text: int
    of_pad: int


def seen(length: int, budget: float, place: Place, visible: int = VISIBLE) -> Seen:
    """What of a text of `length` characters and of its padding stands in the first `visible`."""
    pad = round(budget * length)
    if place == "interleaved":
        share = min(1.0, visible / (length + pad))
        return Seen(round(share * length), round(share * pad))
    before = {"before": pad, "after": 0, "around": pad // 2}[place]
    of_text = min(length, max(0, visible - before))
    behind = min(pad - before, max(0, visible - before - length))
    return Seen(of_text, min(before, visible) + behind)


def blended(
    text: Float[np.ndarray, " d"], pads: Float[np.ndarray, "k d"], share: Seen
) -> Float[np.ndarray, "k d"]:
    """Guess of the vectors of a padded text, of norm 1: mean pooling blends in proportion."""
    mixed = share.of_text * text + share.of_pad * pads
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def worst(
    scores: Float[np.ndarray, " windows"], rows: Int[np.ndarray, " windows"], num_rows: int
) -> Float[np.ndarray, " rows"]:
    """Lowest score of each row's windows; every row has one."""
    lowest = np.full(num_rows, np.inf)
    np.minimum.at(lowest, rows, scores)
    if np.isinf(lowest).any():
        raise ValueError(f"row {int(np.flatnonzero(np.isinf(lowest))[0])} has no window")
    return lowest


def owners(parts: Sequence[Sequence[object]]) -> Int[np.ndarray, " windows"]:
    """The row of each window, for windows listed row by row."""
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])
