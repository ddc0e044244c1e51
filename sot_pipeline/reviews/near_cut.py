"""Which rows are worth a look: those that the cut nearly put on the other side."""

from typing import Literal

import polars as pl

Which = Literal["borderline", "removed", "all"]


def rows_near_cut(
    explained: pl.DataFrame, *, num_kept_by_cut: int, which: Which, num_rows: int
) -> pl.DataFrame:
    """Rows for a person to decide on, nearest to the cut first.

    Args:
        explained: One line per row with `rank` (1 is best) and `kept`.
        num_kept_by_cut: Rows that the cut itself keeps: it lies behind this rank.
        which: "borderline" and "all" look on both sides, "removed" at rows that are out now.
        num_rows: Most rows to return; for "borderline" half of them on either side, as far as
            there are so many. 0: all.
    """
    distance = (pl.col("rank") - num_kept_by_cut - 0.5).abs()
    by_distance = explained.sort(distance, "rank")
    if which == "removed":
        by_distance = by_distance.filter(~pl.col("kept"))
    if num_rows == 0:
        return by_distance
    if which == "borderline":
        above = pl.col("rank") <= num_kept_by_cut
        half = (num_rows + 1) // 2
        place = pl.int_range(pl.len()).over(above)
        by_distance = by_distance.sort(place >= half, maintain_order=True).head(num_rows)
        return by_distance.sort(distance, "rank")
    return by_distance.head(num_rows)
