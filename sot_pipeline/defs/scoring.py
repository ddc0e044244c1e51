"""Score rows that no task has seen, against the solved weights of one."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.embeddings import encoder_for
from sot_pipeline.defs.assets.transport import load_fit, saved_center
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline.errors import InputError
from sot_pipeline.progress import reporter

NEEDED = (
    "sample_weights", "selected_samples", "pull_cost", "safe_embeddings", "harmful_embeddings",
    "safe_texts", "harmful_texts",
)  # fmt: skip


def score_rows(home: Home, task: str, file: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Log-weights of the rows of a file, on the scale of the task's own rows.

    The dual potentials of the two references carry over to any row, so nothing is solved.
    A row is `kept` when its log-weight is at least the lowest of the rows the task kept.

    Returns:
        Scores (`sample_id, source_id, line, kept, log_weight, relative_weight, pull, push,
        nearest_safe, safe_similarity, nearest_harmful, harmful_similarity`), rejected rows.

    Raises:
        InputError: the task has no solved weights, or the file cannot be read.
    """
    from sot_pipeline.embedding.embed import embed
    from sot_pipeline.selection import nearest_reference
    from sot_pipeline.texts.read import read_texts
    from sot_pipeline.transport.cost import cosine_cost
    from sot_pipeline.transport.fit import score_rows as extend_potentials

    settings, _ = home.settings(task)
    assets = _solved(home, task)
    fit = load_fit(assets["sample_weights"].directory / "fit")
    texts = read_texts(
        file,
        format=settings.texts.format,
        max_row_bytes=int(settings.texts.max_row_megabytes * 1_000_000),
    )
    store = Store(home.store)
    encoder = encoder_for(settings.embedding, store.current(task, "aligned_base_model"))
    _require_same_encoder(encoder.fingerprint, assets["safe_embeddings"])
    vectors = embed(
        [json.loads(messages) for messages in texts.rows["messages"]],
        encoder,
        cache=store.root / "rows",
        progress=reporter("embedding", "tokens", lambda line: None),
    ).vectors
    center = saved_center(assets["pull_cost"])
    pull_cost, push_cost = (
        cosine_cost(vectors, np.asarray(assets[f"{name}_embeddings"].array()), center=center)
        for name in ("safe", "harmful")
    )
    scores = extend_potentials(fit, (pull_cost, push_cost))
    safe, harmful = nearest_reference(pull_cost), nearest_reference(push_cost)
    cut = assets["selected_samples"].table()["log_weight"].min()
    ids = {name: assets[f"{name}_texts"].table()["sample_id"] for name in ("safe", "harmful")}
    table = texts.rows.select("sample_id", "source_id", "line").with_columns(
        pl.Series("kept", scores.log_weights >= cut),
        pl.Series("log_weight", scores.log_weights),
        pl.Series("relative_weight", np.exp(scores.log_weights) * len(fit.log_weights)),
        pl.Series("pull", scores.pull_scores),
        pl.Series("push", scores.push_scores),
        ids["safe"].gather(safe.indices).alias("nearest_safe"),
        pl.Series("safe_similarity", 1 - safe.costs),
        ids["harmful"].gather(harmful.indices).alias("nearest_harmful"),
        pl.Series("harmful_similarity", 1 - harmful.costs),
    )
    return table, texts.rejected


def _solved(home: Home, task: str) -> dict[str, Stored]:
    home.read_task(task)  # a wrong name is the likelier mistake
    current = Store(home.store).current_of(task)
    missing = [name for name in NEEDED if name not in current]
    if missing:
        raise InputError(
            f"task {task!r} has not been purified ({', '.join(missing)} missing): run "
            f"`sot purify --task {task}` first"
        )
    return {name: current[name] for name in NEEDED}


def _require_same_encoder(fingerprint: str, embeddings: Stored) -> None:
    if embeddings.document["encoder_fingerprint"] != fingerprint:
        raise InputError(
            f"the task's vectors come from encoder {embeddings.document['encoder_fingerprint']}, "
            f"its settings now name {fingerprint}: purify the task again, or restore the setting"
        )
