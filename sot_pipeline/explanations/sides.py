"""Which reference speaks most for a row's fate.

The score is a sum of two parts, the likeness to the safe reference and the distance from the
harmful one. Their distributions are skewed, so that distances from a mean cannot be compared: a
side speaks as loudly as the number of rows that the row passes on it, of those below it where the
row stays and of those above it where it goes. A part whose own order puts the row on the other
side is never what decided, unless the other part's does so too.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sot_pipeline.explanations.counterfactuals import best


class Sides(NamedTuple):
    """What speaks most for each row's fate.

    `names` holds "safe" or "harmful"; "both" where neither part alone, but their sum, puts the row
    on its side; "neither" where the row passes no other on a part that does.
    """

    names: list[str]
    num_passed: Int[np.ndarray, " n"]  # rows passed on that side; 0 for "both" and "neither"


def speaking_sides(
    safe: Float[np.ndarray, " n"], harmful: Float[np.ndarray, " n"], kept: Bool[np.ndarray, " n"]
) -> Sides:
    """The side that speaks most for each row's fate.

    Args:
        safe: The part of the score that likeness to the safe reference gives, high = keep.
        harmful: The part that distance from the harmful reference gives, high = keep. A part that
            is the same for all rows has no say.
        kept: The rows that the cut keeps.
    """
    parts = np.stack([safe, harmful])
    agrees = np.stack([_has_say(part) & (best(part, int(kept.sum())) == kept) for part in parts])
    passed = np.where(agrees, np.stack([_num_passed(part, kept) for part in parts]), 0)
    louder = passed.argmax(axis=0)  # the safe side where both are as loud
    most = passed.max(axis=0)
    names = np.array(["safe", "harmful"], dtype=object)[louder]
    names[most == 0] = "neither"
    names[~agrees.any(axis=0)] = "both"
    return Sides(names.tolist(), most.astype(np.int64))


def _has_say(part: np.ndarray) -> bool:
    return len(part) > 0 and bool(np.ptp(part) > 0)


def _num_passed(part: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Rows strictly below a row that stays, strictly above one that goes."""
    order = np.sort(part)
    below = np.searchsorted(order, part, side="left")
    above = len(part) - np.searchsorted(order, part, side="right")
    return np.where(kept, below, above)
