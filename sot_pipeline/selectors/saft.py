"""SAFT: rows that lie far out along the main directions of the custom set's hidden states.

    s_i = 1/k sum over j <= k of <z_i - mean, v_j>^2

with z_i the state of row i at one layer and v_j the right singular vectors of the centred states.
Layer, k and the side that is harmful cannot be known without labels: a few labelled rows choose
them by AUROC.

Source: Choi, Du, Li, "Safety-Aware Fine-Tuning of Large Language Models" (2024, arXiv 2410.10014);
no code of the authors is public. Each projection is squared before the mean, as the paper writes
it; a mean of projections that is squared afterwards lets opposite ones cancel.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sot_pipeline.errors import InputError

_RANK_TOLERANCE = 1e-12  # of the states' energy: below it a direction is rounding


class SaftFit(NamedTuple):
    """What was chosen, and what it says of the custom rows.

    Attributes:
        log_weights: `-sign * s_i`.
        layer: Position in the given states.
        num_directions: k.
        sign: 1 where harmful rows lie far out, -1 where they lie near the mean.
        validation_auroc: Chance that a harmful validation row weighs less than another, at the
            best choice: of many choices on few rows, hence too good on chance alone.
    """

    log_weights: Float[np.ndarray, " n"]
    layer: int
    num_directions: int
    sign: int
    validation_auroc: float


def saft(
    custom_states: Float[np.ndarray, "layers n d"],
    validation_states: Float[np.ndarray, "layers v d"],
    validation_is_harmful: Bool[np.ndarray, " v"],
    *,
    max_directions: int = 10,
) -> SaftFit:
    """Fit directions to the custom rows, choose among them on labelled rows.

    Of equal choices the one with fewer directions is taken, then the earlier layer.

    Args:
        custom_states, validation_states: As `last_token_states` gives them, of the same layers.
        validation_is_harmful: True and False must both occur; none of it from the custom set.
        max_directions: Largest k.

    Raises:
        InputError: states that do not fit, labels of one kind, custom rows that are all alike.
    """
    labels = np.asarray(validation_is_harmful, dtype=bool)
    _check(custom_states, validation_states, labels, max_directions)
    best: SaftFit | None = None
    for layer, (custom, validation) in enumerate(
        zip(custom_states, validation_states, strict=True)
    ):
        center = custom.mean(axis=0, dtype=np.float64)
        directions = main_directions(custom, max_directions)
        if not len(directions):
            continue
        judged = _scores(validation - center, directions)
        auroc = np.array([_auroc(labels, scores) for scores in judged])
        sides = np.maximum(auroc, 1 - auroc)
        k = int(sides.argmax())
        if best is None or (sides[k], -k - 1) > (best.validation_auroc, -best.num_directions):
            sign = 1 if auroc[k] >= 0.5 else -1
            scores = _scores(custom - center, directions)[k]
            best = SaftFit(-sign * scores, layer, k + 1, sign, float(sides[k]))
    if best is None:
        raise InputError(
            f"the {custom_states.shape[1]} custom rows have the same state in every layer: there "
            "is no direction to see. Give later layers, or more rows."
        )
    return best


def main_directions(
    states: Float[np.ndarray, "n d"], max_directions: int
) -> Float[np.ndarray, "k d"]:
    """First right singular vectors of the centred states, at most as many as there is rank.

    Through the smaller of the two Gram matrices, in double precision: a hundred thousand rows
    need no array but their own.
    """
    x = states - states.mean(axis=0, dtype=np.float64)
    energy = float(np.square(states, dtype=np.float64).sum())
    wide = x.shape[1] > x.shape[0]
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    order = np.argsort(-values, kind="stable")[:max_directions]
    order = order[values[order] > _RANK_TOLERANCE * energy]
    if wide:
        return (x.T @ (vectors[:, order] / np.sqrt(values[order]))).T
    return vectors[:, order].T


def _scores(
    centred: Float[np.ndarray, "n d"], directions: Float[np.ndarray, "k d"]
) -> Float[np.ndarray, "k n"]:
    """Mean squared projection on the first 1, 2 ... k directions."""
    squares = np.square(directions @ centred.T)
    return np.cumsum(squares, axis=0) / np.arange(1, len(squares) + 1)[:, None]


def _auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score  # slow to import

    return float(roc_auc_score(labels, scores))


def _check(custom: np.ndarray, validation: np.ndarray, labels: np.ndarray, most: int) -> None:
    if (
        custom.ndim != 3
        or validation.ndim != 3
        or (custom.shape[0], custom.shape[2]) != (validation.shape[0], validation.shape[2])
        or not custom.size
    ):
        raise InputError(
            f"custom states have shape {custom.shape}, validation states {validation.shape}; "
            "expected [layers, rows, width] of the same layers of one model"
        )
    if labels.shape != validation.shape[1:2]:
        raise InputError(f"{validation.shape[1]} validation rows, labels of shape {labels.shape}")
    if labels.all() or not labels.any():
        raise InputError(
            f"{labels.sum()} of {len(labels)} validation rows are harmful; expected some and not "
            "all: the labels choose layer, directions and side"
        )
    if most < 1:
        raise InputError(f"max_directions is {most}; expected at least 1")
