"""One vector per row, from a frozen model: of the whole row, or of prompt and answer apart."""

import polars as pl

from sot_pipeline.defs.assets.base_model import base_model_path
from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.settings import EmbeddingSettings, Settings
from sot_pipeline.defs.store import Artifact, Stored
from sot_pipeline.errors import InputError


def _reads(settings: Settings, name: str) -> bool:
    return name != "aligned_base_model" or settings.embedding.encoder == "base"


def encoder_for(settings: EmbeddingSettings, base_model: Stored | None):
    """The encoder that the settings name; 'base' is the task's own base model."""
    from sot_pipeline.embedding.load import load_encoder

    name, revision = settings.encoder, settings.revision
    if name == "base":
        if base_model is None or base_model.document["source"] == "none":
            raise InputError(
                "embedding.encoder is 'base', but the task has no base model: set "
                "base_model.name, or choose another encoder (for example minilm)"
            )
        name, revision = base_model_path(base_model)
    return load_encoder(name, revision=revision, max_length=settings.max_length)


def _embed(stage: Stage, texts: pl.DataFrame, base_model: Stored | None) -> Artifact:
    import json

    from sot_pipeline.embedding.views import embed_rows, vectors_fingerprint, view_for

    encoder = encoder_for(stage.settings.embedding, base_model)
    view = view_for(encoder, stage.settings.embedding.view)
    result = embed_rows(
        [json.loads(messages) for messages in texts["messages"]],
        encoder,
        view=view,
        cache=stage.row_cache,
        progress=stage.progress("tokens"),
    )
    counts = {
        "encoder": stage.settings.embedding.encoder,
        "view": view,
        "num_embedded": result.num_embedded,
        "num_from_cache": result.num_cached,
        "num_truncated": result.num_truncated,
        "num_tokens": result.num_tokens,
    }
    document = counts | {"encoder_fingerprint": vectors_fingerprint(encoder, view)}
    return Artifact(array=result.vectors, document=document, metadata=counts)


@cached_asset(group="inputs", kinds={"torch"}, settings=("embedding",), uses=_reads)
def custom_embeddings(
    stage: Stage, custom_texts: pl.DataFrame, aligned_base_model: Stored | None
) -> Artifact:
    """A vector per custom row, float32 [rows, dimension], in the order of `custom_texts`."""
    return _embed(stage, custom_texts, aligned_base_model)


@cached_asset(group="inputs", kinds={"torch"}, settings=("embedding",), uses=_reads)
def safe_embeddings(
    stage: Stage, safe_texts: pl.DataFrame, aligned_base_model: Stored | None
) -> Artifact:
    """A vector per safe reference row, float32 [rows, dimension], in the order of `safe_texts`."""
    return _embed(stage, safe_texts, aligned_base_model)


@cached_asset(group="inputs", kinds={"torch"}, settings=("embedding",), uses=_reads)
def harmful_embeddings(
    stage: Stage, harmful_texts: pl.DataFrame, aligned_base_model: Stored | None
) -> Artifact:
    """A vector per harmful reference row, float32 [rows, dimension], in the order of
    `harmful_texts`; tasks with the same reference and encoder share one artefact."""
    return _embed(stage, harmful_texts, aligned_base_model)
