"""The cut, with what people decided."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.errors import InputError
from sot_pipeline.reviews.decisions import text_id


class Honoured(NamedTuple):
    """
    Attributes:
        kept: `[n]` bool, the rows that stay.
        decided: `[n]` bool, rows about which a `keep` or `drop` is in force.
        summary: Counts. Of decisions: `num_honoured` (texts of the set that stay or go by one),
            `num_unsure`, `num_naming_no_row`. Of rows: `num_kept_by_cut`, `num_kept_against_cut`,
            `num_dropped_against_cut`.
    """

    kept: np.ndarray
    decided: np.ndarray
    summary: dict[str, int]


def honour_decisions(
    kept_by_cut: np.ndarray, sample_ids: pl.Series, decisions: Mapping[str, str]
) -> Honoured:
    """Let decisions overrule the cut: `keep` keeps a row, `drop` drops it, `unsure` does nothing.

    Args:
        kept_by_cut: `[n]` bool.
        sample_ids: `[n]`, of the same rows.
        decisions: By `sample_id`; they hold for every row of the same text.

    Raises:
        InputError: no row would stay.
    """
    by_text = {text_id(sample_id): decision for sample_id, decision in decisions.items()}
    texts = [text_id(sample_id) for sample_id in sample_ids]
    said = np.array([by_text.get(text, "") for text in texts], dtype=object)
    keep, drop = said == "keep", said == "drop"
    kept = (kept_by_cut | keep) & ~drop
    if not kept.any():
        raise InputError(
            f"no row would stay: of {len(kept):,} rows the cut keeps {int(kept_by_cut.sum()):,} "
            f"and reviewers drop {int(drop.sum()):,}. `sot review list` shows the decisions; "
            "decide `keep`, or `withdraw`, about some"
        )
    present = by_text.keys() & set(texts)
    return Honoured(
        kept,
        keep | drop,
        {
            "num_honoured": sum(by_text[text] in ("keep", "drop") for text in present),
            "num_unsure": sum(decision == "unsure" for decision in by_text.values()),
            "num_naming_no_row": len(by_text.keys() - present),
            "num_kept_by_cut": int(kept_by_cut.sum()),
            "num_kept_against_cut": int(np.sum(keep & ~kept_by_cut)),
            "num_dropped_against_cut": int(np.sum(drop & kept_by_cut)),
        },
    )
