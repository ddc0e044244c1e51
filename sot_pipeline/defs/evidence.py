"""What the explanations of a task are computed from: the solve that decides, and its costs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.costs import saved_center
from sot_pipeline.defs.store import Stored
from sot_pipeline.explanations import HeldOut, Reference, Solve
from sot_pipeline.explanations.counterfactuals import Potentials
from sot_pipeline.explanations.transported import block_slices, blocks_of, transported_mass


class DecidingSolve(NamedTuple):
    """The fit whose scores cut, as far as explanations need it. Under `calibrated` it knows a part
    of the references, and its rows begin with the custom ones."""

    fit: Path  # as `save_fit` wrote it
    calibration: Stored | None

    def array(self, name: str) -> np.ndarray:
        # number by number: a fit of earlier code may have other fields
        return np.load(self.fit / f"{name}.npy", allow_pickle=False)

    @property
    def scalars(self) -> dict:
        return json.loads((self.fit / "scalars.json").read_text())

    def counterfactual(self, num_rows: int) -> Solve:
        """Lambda and potentials of the custom rows; without these where log-weights are no
        function of them."""
        scalars = self.scalars
        if scalars["tau"] == 0 or scalars["optimizer"] == "adam":
            return Solve(scalars["lambda_push"])
        carried = scalars["epsilon"] * self.array("solved_at")  # ott-jax's convention: f holds it
        pull, push = ((self.array(name) - carried)[:num_rows] for name in ("f_pull", "f_push"))
        return Solve(scalars["lambda_push"], Potentials(pull, push))


def deciding_solve(sample_weights: Stored, calibration: Stored | None) -> DecidingSolve:
    stored = sample_weights if calibration is None else calibration
    return DecidingSolve(stored.directory / "fit", calibration)


def references(
    solve: DecidingSolve,
    *,
    costs: tuple[Stored, Stored],
    embeddings: tuple[np.ndarray, np.ndarray, np.ndarray],
    texts: tuple[pl.DataFrame, pl.DataFrame],
) -> tuple[Reference, Reference]:
    """The safe and the harmful reference with the custom rows' mass on them.

    Args:
        costs: To the safe and to the harmful reference.
        embeddings: Of the custom rows and of both references.
        texts: Of both references.
    """
    from sot_pipeline.transport.diagnostics import reach

    epsilon = solve.scalars["epsilon"]
    found = []
    for name, side, cost, vectors, rows in zip(
        ("safe", "harmful"), ("pull", "push"), costs, embeddings[1:], texts, strict=True
    ):
        fitted, blocks = _costs_of(solve, name, cost, embeddings[0], vectors)
        categories = rows["category"].unique().drop_nulls().sort()
        groups = _groups(rows["category"], categories)[fitted]
        mass = transported_mass(blocks, solve.array(f"g_{side}"), epsilon, groups=groups)
        found.append(
            Reference(
                rows["sample_id"],
                mass._replace(rows=fitted[mass.rows]),
                tuple(categories),
                reach(vectors, center=saved_center(cost)),
            )
        )
    return found[0], found[1]


def _costs_of(
    solve: DecidingSolve, name: str, cost: Stored, custom: np.ndarray, vectors: np.ndarray
) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Positions of the reference's rows that the solve knows, and blocks of the costs to them."""
    if solve.calibration is None:
        return np.arange(len(vectors)), blocks_of(cost.array())
    folder = solve.calibration.directory
    fitted = np.load(folder / f"{name}_fitted.npy", allow_pickle=False)
    return fitted, _calibration_costs(folder, custom, np.asarray(vectors)[fitted])


def _calibration_costs(
    folder: Path, custom: np.ndarray, reference: np.ndarray
) -> Iterator[np.ndarray]:
    from sot_pipeline.transport.cost import cosine_cost

    path = folder / "center.npy"
    center = np.load(path, allow_pickle=False) if path.exists() else None
    for rows in block_slices(len(custom), len(reference)):
        yield cosine_cost(custom[rows], reference, center=center)


def _groups(of_rows: pl.Series, categories: pl.Series) -> np.ndarray:
    """Position of each row's category, -1 for none."""
    places = pl.DataFrame({"name": of_rows}).join(
        pl.DataFrame({"name": categories}).with_row_index("place"),
        on="name",
        how="left",
        maintain_order="left",
    )
    return places["place"].cast(pl.Int64).fill_null(-1).to_numpy()


def held_out_rows(calibration: Stored | None, max_false_keep_rate: float) -> HeldOut | None:
    """What a calibrated cut was made from."""
    if calibration is None:
        return None
    harmful = np.load(calibration.directory / "held_out_harmful.npy", allow_pickle=False)
    return HeldOut(harmful, calibration.document["contamination"], max_false_keep_rate)
