"""Plain reasons for each row's fate, from evidence only."""

import numpy as np
import polars as pl


def explain_rows(
    sample_weights: pl.DataFrame,
    *,
    kept_ids: pl.Series,
    safe_ids: pl.Series,
    harmful_ids: pl.Series,
) -> pl.DataFrame:
    """One line per custom row, in the order of `sample_weights`.

    Args:
        sample_weights: `sample_id, log_weight, rank, pull, push` and, for the nearest reference
            rows, `nearest_safe_row, safe_cost, nearest_harmful_row, harmful_cost` (positions and
            cosine costs in [0, 2]); if there, `harmful_p_value`, the share of held-out harmful
            rows that score at least as high, null where no rows were held out.
        kept_ids: Ids of the rows that stay.
        safe_ids, harmful_ids: Ids of the reference rows, by position.

    Returns:
        `sample_id, kept, rank, log_weight, relative_weight` (1 = uniform), `pull, push,
        nearest_safe, safe_similarity, nearest_harmful, harmful_similarity, harmful_p_value,
        reason`.
    """
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
        safe_ids.gather(sample_weights["nearest_safe_row"]).alias("nearest_safe"),
        (1 - pl.col("safe_cost")).alias("safe_similarity"),
        harmful_ids.gather(sample_weights["nearest_harmful_row"]).alias("nearest_harmful"),
        (1 - pl.col("harmful_cost")).alias("harmful_similarity"),
        pl.col("harmful_p_value") if known else pl.lit(None, pl.Float64).alias("harmful_p_value"),
    )
    reasons = [_reason(row, num_rows) for row in table.iter_rows(named=True)]
    return table.with_columns(pl.Series("reason", reasons, dtype=pl.String))


def _reason(row: dict, num_rows: int) -> str:
    verdict = "Kept" if row["kept"] else "Removed"
    nearer = (
        "closer to the harmful reference"
        if row["harmful_similarity"] > row["safe_similarity"]
        else "closer to the safe reference"
    )
    value = row["harmful_p_value"]
    rarity = "" if value is None else f" Of harmful rows about {value:.1%} score as high."
    return (
        f"{verdict}: rank {row['rank']:,} of {num_rows:,}, {row['relative_weight']:.2g} times the "
        f"uniform weight. Its nearest row is {nearer}: harmful {row['nearest_harmful']} "
        f"(similarity {row['harmful_similarity']:.2f}), safe {row['nearest_safe']} "
        f"(similarity {row['safe_similarity']:.2f}).{rarity}"
    )
