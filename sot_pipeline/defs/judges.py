"""The judge that the evaluation settings name, and what outside the graph it reads."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sot_pipeline.defs.settings import EvaluationSettings
from sot_pipeline.defs.sources import file_identity, local_model_identity
from sot_pipeline.errors import InputError
from sot_pipeline.progress import reporter

if TYPE_CHECKING:
    from sot_pipeline.evaluation.agreement_table import Rater
    from sot_pipeline.evaluation.embedding_judge import Embed, EmbeddingJudge
    from sot_pipeline.evaluation.judge import Judge
    from sot_pipeline.evaluation.labelled import LabelledFile


def make_judge(settings: EvaluationSettings, *, row_cache: Path | None = None) -> "Judge":
    """The judge that the evaluation settings name.

    Args:
        row_cache: Folder of the embeddings' row cache; only the judge "embedding" embeds.

    Raises:
        InputError: A field that the judge needs is empty or wrong; says which to set.
    """
    if settings.judge == "demo":
        from sot_pipeline.demo.judge import DemoJudge

        return DemoJudge()
    if settings.judge == "openai":
        return _openai_judge(settings)
    if settings.judge == "classifier":
        return _classifier_judge(settings)
    if settings.judge == "embedding":
        labelled = _required(settings, "judge_labelled", "a file of answers that people judged")
        return _embedding_judge(
            labelled, file_identity(Path(labelled)), settings.judge_encoder,
            settings.judge_threshold, row_cache,
        )  # fmt: skip
    from sot_pipeline.evaluation.judge import KeywordJudge

    return KeywordJudge()


def judge_files(settings: EvaluationSettings) -> Mapping[str, Any]:
    """Identity of the files that the judge is made of, for the fingerprint of what it judges."""
    read: dict[str, Any] = {}
    if settings.judge == "embedding" and settings.judge_labelled:
        read["judge_labelled"] = file_identity(Path(settings.judge_labelled))
        read["judge_encoder"] = local_model_identity(settings.judge_encoder)
    if settings.judge == "classifier":
        read["judge_classifier"] = local_model_identity(settings.judge_classifier)
    return {field: identity for field, identity in read.items() if identity is not None}


def embedder(name: str, row_cache: Path | None) -> tuple["Embed", str]:
    """What makes vectors of conversations, as the pipeline embeds rows, and its fingerprint."""
    from sot_pipeline.embedding.load import load_encoder
    from sot_pipeline.embedding.views import embed_rows, vectors_fingerprint, view_for

    encoder = load_encoder(name)
    view = view_for(encoder, "auto")

    def embed(conversations: list) -> Any:
        progress = reporter("judge", "tokens", lambda line: None)
        found = embed_rows(conversations, encoder, view=view, cache=row_cache, progress=progress)
        return found.vectors

    return embed, vectors_fingerprint(encoder, view)


@lru_cache(maxsize=2)  # one evaluation makes its judge several times; fitting takes seconds
def _embedding_judge(
    labelled: str, identity: str, encoder: str, threshold: float, row_cache: Path | None
) -> "EmbeddingJudge":
    from sot_pipeline.evaluation.embedding_judge import EmbeddingJudge
    from sot_pipeline.evaluation.labelled import read_labelled

    answers = read_labelled(Path(labelled)).labelled_answers()
    embed, fingerprint = embedder(encoder, row_cache)
    return EmbeddingJudge(embed, fingerprint, answers, threshold=threshold)


def _openai_judge(settings: EvaluationSettings) -> "Judge":
    if not settings.judge_base_url or not settings.judge_model:
        raise InputError(
            "the openai judge needs evaluation.judge_base_url and evaluation.judge_model, "
            "for example http://127.0.0.1:8000/v1 and the name of the served model"
        )
    from sot_pipeline.evaluation.openai_judge import OpenAIJudge
    from sot_pipeline.evaluation.rubrics import rubric_named

    return OpenAIJudge(
        base_url=settings.judge_base_url,
        model=settings.judge_model,
        rubric=rubric_named(settings.judge_rubric, policy=settings.judge_policy),
        api_key_env=settings.judge_api_key_env,
    )


def _classifier_judge(settings: EvaluationSettings) -> "Judge":
    name = _required(settings, "judge_classifier", "a directory or Hugging Face id")
    if not settings.judge_harmful_labels:
        raise InputError(
            "the classifier judge needs evaluation.judge_harmful_labels: the labels of "
            f"{name} that mean harm, as its config.json names them under id2label"
        )
    from sot_pipeline.evaluation.classifier_judge import ClassifierJudge

    return ClassifierJudge(
        name,
        settings.judge_harmful_labels,
        revision=settings.judge_classifier_revision,
        threshold=settings.judge_threshold,
    )


def _required(settings: EvaluationSettings, field: str, expected: str) -> str:
    value = getattr(settings, field)
    if not value:
        raise InputError(f"the {settings.judge} judge needs evaluation.{field}: {expected}")
    return value


def row_cache_of(home: Path | None) -> Path:
    """Where a project keeps embedded rows."""
    from sot_pipeline.defs.home import Home

    return Home(home).store / "rows"


def judge_rater(file: "LabelledFile", settings: EvaluationSettings) -> tuple["Rater", str]:
    """What a judge says of labelled answers, of every kind that it judges and people labelled.

    Returns:
        The verdicts, and the judge's fingerprint.
    """
    import numpy as np

    from sot_pipeline.evaluation.agreement_table import Rater

    judge = make_judge(settings)
    verdicts = {}
    for kind in file.kinds:
        if kind in judge.kinds:
            rows = np.flatnonzero(~np.isnan(file.truth(kind)))  # the others need no verdict
            prompts, answers = file.prompts, file.answers
            found = judge.judge([prompts[r] for r in rows], [answers[r] for r in rows], kind)
            verdicts[kind] = np.full(file.rows.height, np.nan)
            verdicts[kind][rows] = [np.nan if verdict is None else verdict for verdict in found]
    return Rater(judge.name, verdicts), judge.fingerprint


def cross_fitted_rater(
    file: "LabelledFile", settings: EvaluationSettings, row_cache: Path
) -> tuple["Rater", str]:
    """Probabilities for labelled answers, each by a model that saw no answer to its prompt.

    Returns:
        The probabilities, and a fingerprint of the encoder and the labelled answers.
    """
    import numpy as np

    from sot_pipeline.evaluation.agreement_table import Rater
    from sot_pipeline.evaluation.embedding_judge import (
        conversations,
        cross_fitted,
        fingerprint_of_training,
        known_labels,
    )

    embed, encoder = embedder(settings.judge_encoder, row_cache)
    labelled = file.labelled_answers()
    vectors = embed(conversations(labelled.prompts, labelled.answers))
    verdicts, groups = {}, labelled.groups
    for kind, labels in labelled.labels.items():
        rows, known = known_labels(labels)
        verdicts[kind] = np.full(len(labels), np.nan)
        verdicts[kind][rows] = cross_fitted(vectors[rows], known, [groups[row] for row in rows])
    threshold = settings.judge_threshold
    fingerprint = fingerprint_of_training(encoder, labelled, threshold)
    return Rater("embedding", verdicts, threshold, continuous=True), fingerprint
