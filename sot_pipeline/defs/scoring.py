"""Score rows that no task has seen, against the solved weights of one."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.costs import saved_center
from sot_pipeline.defs.assets.embeddings import encoder_for
from sot_pipeline.defs.assets.transport import load_fit
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.sources import fetching_progress
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline.errors import InputError
from sot_pipeline.progress import reporter

NEEDED = (
    "selected_samples", "pull_cost", "safe_embeddings", "harmful_embeddings", "safe_texts",
    "harmful_texts",
)  # fmt: skip
SCORERS = {"top_k": "sample_weights", "calibrated": "calibration"}  # whose fit scores a row


class ScoredRows(NamedTuple):
    """The rows of a source, their vectors, and what a task makes of them."""

    scores: pl.DataFrame  # as `score_rows` returns them
    rejected: pl.DataFrame
    messages: pl.Series  # JSON text of each row's conversation
    vectors: np.ndarray  # [rows, dimension]


def score_rows(home: Home, task: str, source: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Log-weights of the rows of a source, on the scale of the task's own rows.

    The dual potentials of the two references carry over to any row, so nothing is solved.
    A row is `kept` as the task's own rows were: under `top_k` when its log-weight is nearer to the
    lowest row that stayed than to the highest that went, or above; under `calibrated` when it is
    above the held-out harmful row that marks the cut.

    Returns:
        Scores (`sample_id, source_id, file, line, kept, log_weight, relative_weight, pull, push,
        nearest_safe, safe_similarity, nearest_harmful, harmful_similarity, harmful_p_value`, the
        last null under `top_k`), rejected rows.

    Raises:
        InputError: the task has no solved weights, or the source cannot be read.
    """
    scored = score_source(home, task, source)
    return scored.scores, scored.rejected


def score_source(
    home: Home, task: str, source: str, *, require_response: bool = True
) -> ScoredRows:
    """As `score_rows`, with the rows' conversations and vectors.

    Args:
        require_response: False takes prompts without an answer too.
    """
    from sot_pipeline.embedding.views import embed_rows, vectors_fingerprint, view_for
    from sot_pipeline.selection import nearest_reference
    from sot_pipeline.texts.fetch import input_files
    from sot_pipeline.texts.read import read_text_files
    from sot_pipeline.transport.cost import cosine_cost

    settings, _ = home.settings(task)
    assets = purified_assets(home, task, NEEDED)
    found = input_files([source], home.fetched, licences={}, progress=fetching_progress)
    texts = read_text_files(
        {file.name: file.path for file in found},
        format=settings.texts.format,
        require_response=require_response,
        max_row_bytes=int(settings.texts.max_row_megabytes * 1_000_000),
    )
    store = Store(home.store)
    encoder = encoder_for(settings.embedding, store.current(task, "aligned_base_model"))
    view = view_for(encoder, settings.embedding.view)
    _require_same_encoder(vectors_fingerprint(encoder, view), view, assets["safe_embeddings"])
    vectors = embed_rows(
        [json.loads(messages) for messages in texts.rows["messages"]],
        encoder,
        view=view,
        cache=store.root / "rows",
        progress=reporter("embedding", "tokens", lambda line: None),
    ).vectors
    references = [np.asarray(assets[f"{name}_embeddings"].array()) for name in ("safe", "harmful")]
    center = saved_center(assets["pull_cost"])
    safe, harmful = (
        nearest_reference(cosine_cost(vectors, rows, center=center)) for rows in references
    )
    scorer = _scorer(store, assets["selected_samples"])
    scores = _scores(scorer, vectors, references, center)
    kept, rarity = _judged(scores.log_weights, assets["selected_samples"], scorer)
    ids = {name: assets[f"{name}_texts"].table()["sample_id"] for name in ("safe", "harmful")}
    table = texts.rows.select("sample_id", "source_id", "file", "line").with_columns(
        pl.Series("kept", kept),
        pl.Series("log_weight", scores.log_weights),
        pl.Series("relative_weight", np.exp(scores.log_weights) * scorer.manifest["rows"]),
        pl.Series("pull", scores.pull_scores),
        pl.Series("push", scores.push_scores),
        ids["safe"].gather(safe.indices).alias("nearest_safe"),
        pl.Series("safe_similarity", 1 - safe.costs),
        ids["harmful"].gather(harmful.indices).alias("nearest_harmful"),
        pl.Series("harmful_similarity", 1 - harmful.costs),
        (pl.lit(None, pl.Float64) if rarity is None else pl.Series(rarity)).alias(
            "harmful_p_value"
        ),
    )
    return ScoredRows(table, texts.rejected, texts.rows["messages"], vectors)


def _scorer(store: Store, selected: Stored) -> Stored:
    """The version of the weights that the cut was made with."""
    name = SCORERS[selected.document["method"]]
    stored = store.find(name, selected.manifest["inputs"][name])
    if stored is None:
        raise InputError(f"the {name} that the cut was made with is gone: purify the task again")
    return stored


def _scores(scorer: Stored, vectors: np.ndarray, references: list[np.ndarray], center) -> Any:
    """Scores of rows on the scale of the task's own, against the rows the fit was made with."""
    from sot_pipeline.transport.cost import cosine_cost
    from sot_pipeline.transport.fit import score_rows as extend_potentials

    if scorer.asset == "calibration":
        center = saved_center(scorer)
        references = [
            rows[np.load(scorer.directory / f"{name}_fitted.npy", allow_pickle=False)]
            for rows, name in zip(references, ("safe", "harmful"), strict=True)
        ]
    pull_cost, push_cost = (cosine_cost(vectors, rows, center=center) for rows in references)
    scores = extend_potentials(load_fit(scorer.directory / "fit"), (pull_cost, push_cost))
    log_total = scorer.document.get("log_total", 0.0)
    return scores._replace(log_weights=scores.log_weights - log_total)


def _judged(
    log_weights: np.ndarray, selected: Stored, scorer: Stored
) -> tuple[np.ndarray, np.ndarray | None]:
    """Which rows the task's cut would keep, and their p-values if it is a calibrated one."""
    cut = selected.document
    if cut["method"] == "top_k":
        return log_weights >= cut["threshold"], None
    from sot_pipeline.transport.calibration import p_values

    held_out = np.load(scorer.directory / "held_out_harmful.npy", allow_pickle=False)
    return log_weights > cut["threshold"], p_values(log_weights, held_out)


def purified_assets(home: Home, task: str, names: Sequence[str]) -> dict[str, Stored]:
    """A task's current versions of these assets.

    Raises:
        InputError: no such task, or one of them is missing.
    """
    home.read_task(task)  # a wrong name is the likelier mistake
    current = Store(home.store).current_of(task)
    missing = [name for name in names if name not in current]
    if missing:
        raise InputError(
            f"task {task!r} has not been purified ({', '.join(missing)} missing): run "
            f"`sot purify --task {task}` first"
        )
    return {name: current[name] for name in names}


def _require_same_encoder(fingerprint: str, view: str, embeddings: Stored) -> None:
    solved_view = embeddings.document.get("view", "whole")  # all that there was at first
    if solved_view != view:
        raise InputError(
            f"the task's vectors are of view {solved_view!r} (embedding.view), its settings now "
            f"mean {view!r}: purify the task again, or restore the setting"
        )
    if embeddings.document["encoder_fingerprint"] != fingerprint:
        raise InputError(
            f"the task's vectors come from encoder {embeddings.document['encoder_fingerprint']}, "
            f"its settings now name {fingerprint}: purify the task again, or restore the setting"
        )
