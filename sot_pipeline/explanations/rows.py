"""The evidence about every custom row, as one table."""

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

from sot_pipeline.explanations.counterfactuals import (
    Potentials,
    false_keep_rate_needed,
    keep_fraction_needed,
    lambda_change,
)
from sot_pipeline.explanations.second_opinions import disagreeing_methods
from sot_pipeline.explanations.sentences import Cut, explanation, reason
from sot_pipeline.explanations.sides import speaking_sides
from sot_pipeline.explanations.transported import TransportedMass

NO_DECISIONS = pl.DataFrame(schema={"sample_id": pl.String, "decision": pl.String})


class Reference(NamedTuple):
    """A reference as the explanations see it."""

    ids: pl.Series  # sample ids, by position
    mass: TransportedMass  # of the custom rows; its `rows` are positions in `ids`
    categories: tuple[str, ...] = ()  # names of the mass's groups
    reach: float | None = None  # cost up to which it judges a row; None: any


class Solve(NamedTuple):
    """What the counterfactuals are computed from."""

    lambda_push: float
    potentials: Potentials | None = None  # None where log-weights are no function of them


class HeldOut(NamedTuple):
    """What a calibrated cut was made from."""

    harmful: Float[np.ndarray, " m"]  # scores of held-out harmful rows
    contamination: float
    max_false_keep_rate: float


def explain_rows(
    sample_weights: pl.DataFrame,
    *,
    kept_ids: pl.Series,
    safe: Reference,
    harmful: Reference,
    solve: Solve,
    held_out: HeldOut | None = None,
    decisions: pl.DataFrame | None = None,
    num_kept_by_cut: int | None = None,
) -> pl.DataFrame:
    """One line per custom row, in the order of `sample_weights`.

    Args:
        sample_weights: `sample_id, log_weight, rank, pull, push` and, for the nearest reference
            rows, `nearest_safe_row, safe_cost, nearest_harmful_row, harmful_cost` (positions and
            cosine costs in [0, 2]); if there, `harmful_p_value`, the share of held-out harmful
            rows that score at least as high, null where no rows were held out.
        kept_ids: Ids of the rows that stay.
        safe, harmful: Both references with the rows' mass on them.
        solve: Lambda, and the potentials that the log-weights are made of.
        held_out: Of a calibrated cut; None: as many rows stay as were asked for.
        decisions: `sample_id, decision` of the rows that a reviewer decided: "keep" or "drop" for
            all rows of the same text; any other word decides nothing.
        num_kept_by_cut: Rows that the cut itself keeps; None takes the lowest place of a kept row
            that nobody decided about.

    Returns:
        `sample_id, kept, rank, log_weight, relative_weight` (1 = uniform), `pull, push,
        nearest_safe, safe_similarity, nearest_harmful, harmful_similarity, harmful_p_value`;
        of the at most three rows of each reference that take most of the row's transported mass
        the lists `harmful_ids, harmful_shares, harmful_similarities, safe_ids, safe_shares,
        safe_similarities` (shares of the row's mass; cosine similarities); `harmful_category`
        (with most of the mass; null where rows of no category have it) and
        `harmful_category_share`; `keep_fraction_needed, false_keep_rate_needed` (null unless
        calibrated), `lambda_change` (see `counterfactuals`; null: none), `disagreeing_methods`,
        `far_from_references`, `decision`, `reason` (a sentence) and `explanation` (a paragraph).
    """
    table = _evidence(sample_weights, kept_ids, safe, harmful, decisions)
    count = _num_above(table) if num_kept_by_cut is None else num_kept_by_cut
    by_cut = (table["rank"] <= count).to_numpy()
    table = table.with_columns(*_what_if(table, by_cut, solve, held_out))
    nearness = (table["safe_similarity"] - table["harmful_similarity"]).to_numpy()
    kept = table["kept"].to_numpy()
    scores = {"nearest_rows": nearness}
    if solve.potentials is not None:
        parts = {"pull_alone": -solve.potentials.pull, "push_alone": solve.potentials.push}
        scores = parts | scores
    cut = Cut(
        num_rows=table.height,
        num_above=count,
        lambda_push=solve.lambda_push,
        num_harmful=harmful.mass.num_rows,
        num_safe=safe.mass.num_rows,
        max_false_keep_rate=None if held_out is None else held_out.max_false_keep_rate,
    )
    table = table.with_columns(
        pl.Series(
            "disagreeing_methods",
            disagreeing_methods(scores, kept, count),
            dtype=pl.List(pl.String),
        ),
        pl.Series("far_from_references", _far(sample_weights, safe, harmful), dtype=pl.Boolean),
    )
    told = table.with_columns(*_sides(table, by_cut, solve))
    # the only loop over rows: their sentences
    texts = [(reason(row, cut), explanation(row, cut)) for row in told.iter_rows(named=True)]
    return table.with_columns(
        pl.Series("reason", [short for short, _ in texts], dtype=pl.String),
        pl.Series("explanation", [text for _, text in texts], dtype=pl.String),
    )


def _evidence(
    sample_weights: pl.DataFrame,
    kept_ids: pl.Series,
    safe: Reference,
    harmful: Reference,
    decisions: pl.DataFrame | None,
) -> pl.DataFrame:
    num_rows = sample_weights.height
    known = "harmful_p_value" in sample_weights.columns
    table = sample_weights.select(
        "sample_id",
        pl.col("sample_id").is_in(kept_ids.implode()).alias("kept"),
        "rank",
        "log_weight",
        (pl.col("log_weight") + np.log(max(num_rows, 1))).exp().alias("relative_weight"),
        "pull",
        "push",
        safe.ids.gather(sample_weights["nearest_safe_row"]).alias("nearest_safe"),
        (1 - pl.col("safe_cost")).alias("safe_similarity"),
        harmful.ids.gather(sample_weights["nearest_harmful_row"]).alias("nearest_harmful"),
        (1 - pl.col("harmful_cost")).alias("harmful_similarity"),
        pl.col("harmful_p_value") if known else pl.lit(None, pl.Float64).alias("harmful_p_value"),
        *_named("harmful", harmful),
        *_named("safe", safe),
        *_category(harmful),
    )
    # a decision holds for every row of the same text, the last one about it; "unsure" decides none
    text = pl.col("sample_id").str.replace(r"-\d+$", "").alias("text")
    decided = (NO_DECISIONS if decisions is None else decisions).select(text, "decision")
    decided = decided.unique("text", keep="last").filter(pl.col("decision").is_in(["keep", "drop"]))
    return (
        table.with_columns(text)
        .join(decided, on="text", how="left", maintain_order="left")
        .drop("text")
    )


def _named(name: str, reference: Reference) -> list[pl.Series]:
    mass = reference.mass
    width = mass.rows.shape[1]
    ids = reference.ids.gather(mass.rows.ravel()).to_numpy().reshape(-1, width)
    columns = {"ids": ids, "shares": mass.shares, "similarities": mass.similarities}
    return [
        pl.Series(f"{name}_{part}", values, dtype=pl.Array(_TYPES[part], width)).cast(
            pl.List(_TYPES[part])
        )
        for part, values in columns.items()
    ]


_TYPES = {"ids": pl.String, "shares": pl.Float64, "similarities": pl.Float64}


def _category(reference: Reference) -> list[pl.Series]:
    names = pl.Series(reference.categories, dtype=pl.String)
    groups = pl.Series(reference.mass.groups, dtype=pl.Int64)
    known = groups >= 0
    places = groups.set(~known, None).cast(pl.UInt32)
    shares = pl.Series(reference.mass.group_shares, dtype=pl.Float64)
    return [
        names.gather(places).alias("harmful_category"),
        shares.set(~known, None).alias("harmful_category_share"),
    ]


def _num_above(table: pl.DataFrame) -> int:
    undecided = table.filter(pl.col("decision").is_null() & pl.col("kept"))
    return int(undecided["rank"].max()) if undecided.height else 0  # type: ignore[arg-type]


def _what_if(
    table: pl.DataFrame, by_cut: np.ndarray, solve: Solve, held_out: HeldOut | None
) -> list[pl.Series]:
    scores, none = table["log_weight"].to_numpy(), np.full(table.height, np.nan)
    rates, lambdas = none, none
    if held_out is not None:
        rates = false_keep_rate_needed(
            scores, held_out.harmful, contamination=held_out.contamination
        )
    if solve.potentials is not None:
        lambdas = lambda_change(solve.potentials, by_cut, solve.lambda_push)
    found = {
        "keep_fraction_needed": keep_fraction_needed(table["rank"].to_numpy()),
        "false_keep_rate_needed": rates,
        "lambda_change": lambdas,
    }
    return [
        pl.Series(name, values, dtype=pl.Float64).fill_nan(None) for name, values in found.items()
    ]


def _sides(table: pl.DataFrame, by_cut: np.ndarray, solve: Solve) -> list[pl.Series]:
    """`side` and `num_passed`, of which the sentences speak."""
    safe, harmful = table["pull"].to_numpy(), table["push"].to_numpy()
    if solve.potentials is not None and 0 < solve.lambda_push < 1:
        # as the methods that disagree are computed: the same order, to the last bit
        safe, harmful = -solve.potentials.pull, solve.potentials.push
    sides = speaking_sides(safe, harmful, by_cut)
    return [
        pl.Series("side", sides.names, dtype=pl.String),
        pl.Series("num_passed", sides.num_passed, dtype=pl.Int64),
    ]


def _far(
    sample_weights: pl.DataFrame, safe: Reference, harmful: Reference
) -> Bool[np.ndarray, " n"]:
    """Rows farther from both references than their own rows are from one another."""
    far = np.ones(sample_weights.height, dtype=bool)
    for name, reference in (("safe", safe), ("harmful", harmful)):
        reach = np.inf if reference.reach is None else reference.reach
        far &= sample_weights[f"{name}_cost"].to_numpy() > reach
    return far
