"""A report of many rows, with every part that a report can have: for measurements."""

from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.report.data import Coverage, ReportData
from sot_pipeline.report.embedding_map import EmbeddingMap
from sot_pipeline_tests.report.samples import report_data

CATEGORIES = ("weather", "cooking", "travel", "sport", "music")


def large_report_data(num_rows: int, *, num_references: int = 2_900, **changes: Any) -> ReportData:
    """Random ids, weights and coordinates, as hard to compress as real ones; a fifth is removed."""
    rng = np.random.default_rng(0)
    rank = rng.permutation(num_rows) + 1
    keep = num_rows - num_rows // 5
    references = {name: ids(rng, num_references) for name in ("safe", "harmful")}
    nearest = {
        name: np.array(found)[rng.integers(num_references, size=num_rows)]
        for name, found in references.items()
    }
    similarity = {name: rng.uniform(-0.2, 1.0, num_rows) for name in references}
    kept = rank <= keep
    table = pl.DataFrame(
        {
            "sample_id": ids(rng, num_rows),
            "source_id": [f"row-{i:06d}" for i in range(num_rows)],
            "line": np.arange(1, num_rows + 1),
            "category": np.array(CATEGORIES)[rng.integers(len(CATEGORIES), size=num_rows)],
            "kept": kept,
            "rank": rank,
            "log_weight": -6.0 * rank / num_rows + rng.normal(0, 1e-3, num_rows),
            "nearest_safe": nearest["safe"],
            "safe_similarity": similarity["safe"],
            "nearest_harmful": nearest["harmful"],
            "harmful_similarity": similarity["harmful"],
            "harmful_p_value": rng.uniform(size=num_rows),
        }
    ).with_columns(
        reason=pl.format(
            "{}: rank {} of " + f"{num_rows:,}" + ". Its nearest row is harmful {} (similarity {}), "
            "safe {} (similarity {}).",
            pl.when("kept").then(pl.lit("Kept")).otherwise(pl.lit("Removed")),
            "rank",
            "nearest_harmful",
            pl.col("harmful_similarity").round(2),
            "nearest_safe",
            pl.col("safe_similarity").round(2),
        )
    )  # fmt: skip
    table = table.with_columns(
        explanation=pl.format(
            "{} Most of the mass that this row sends to the harmful reference lies on {}, a row of "
            "the category {}; it would stay if {} of the rows were kept.",
            "reason",
            "nearest_harmful",
            "category",
            (pl.col("rank") / num_rows).round(4),
        )
    )
    shape = {"custom": num_rows, "safe": num_references, "harmful": num_references}
    maps = [EmbeddingMap(*(rng.normal(size=(n, 2)) for n in shape.values())) for _ in range(2)]
    return report_data(
        ledger=table,
        points=maps[0],
        neighbours=maps[1],
        references=pl.concat(
            pl.DataFrame(
                {
                    "text_set": [name] * num_references,
                    "sample_id": found,
                    "line": np.arange(1, num_references + 1),
                    "category": np.array(CATEGORIES)[np.arange(num_references) % len(CATEGORIES)],
                }
            )
            for name, found in references.items()
        ),
        coverage=Coverage(
            uncovered=rng.uniform(size=num_rows) < 0.01,
            safe_cost=1 - similarity["safe"],
            harmful_cost=1 - similarity["harmful"],
            safe_radius=0.6,
            harmful_radius=0.7,
            most_expected=0.05,
        ),
        **changes,
    )


def ids(rng: np.random.Generator, count: int) -> list[str]:
    return [f"{value:016x}-0" for value in rng.integers(2**63, size=count)]
