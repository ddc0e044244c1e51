"""Other ways to score the custom rows, each an asset that says what it reads.

Each is a table `sample_id, log_weight, rank` (larger is better) with the time and memory that it
took; one that the task's comparison does not ask for is empty and reads nothing. The methods are
those of `sot_pipeline.selectors`, and parts of the transport itself.
"""

import json
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.base_model import base_model_path
from sot_pipeline.defs.assets.evaluation import make_judge
from sot_pipeline.defs.assets.transport import learner
from sot_pipeline.defs.cached_asset import CachedAsset, Stage
from sot_pipeline.defs.rival_asset import ranked, rival
from sot_pipeline.defs.rivals import options_of, what_lacks
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.store import Artifact, Stored
from sot_pipeline.errors import InputError

NUM_VALIDATION_ROWS = 100  # SAFT's own number
MAX_PROBES = 64  # harmless prompts that LARF watches for refusals


def _conversations(texts: pl.DataFrame) -> list[Any]:
    return [json.loads(messages) for messages in texts["messages"]]


# Parts of the transport


def _solved(stage: Stage, pull: np.ndarray, push: np.ndarray, **changed: Any):
    fit = learner(stage, **changed)(pull, push)
    return fit.log_weights, {
        "converged": bool(fit.converged),
        "effective_sample_size": fit.effective_sample_size,
    }


@rival(kinds={"jax"}, settings=("transport",))
def sot_balanced_weights(
    stage: Stage, custom_texts: pl.DataFrame, pull_cost: np.ndarray, push_cost: np.ndarray
) -> Artifact:
    """Eq. 5 with both references' whole mass transported, as the paper has it."""
    return ranked(
        stage,
        "sot_balanced",
        custom_texts,
        lambda: _solved(stage, pull_cost, push_cost, reference_relaxation=0.0),
        compiles=True,
    )


@rival(kinds={"jax"}, settings=("transport",))
def sot_pull_weights(
    stage: Stage, custom_texts: pl.DataFrame, pull_cost: np.ndarray, push_cost: np.ndarray
) -> Artifact:
    """Eq. 5 with lambda 0: pulled to the safe reference only."""
    return ranked(
        stage,
        "sot_pull",
        custom_texts,
        lambda: _solved(stage, pull_cost, push_cost, lambda_push=0.0),
        compiles=True,
    )


@rival(kinds={"jax"}, settings=("transport",))
def sot_push_weights(
    stage: Stage, custom_texts: pl.DataFrame, pull_cost: np.ndarray, push_cost: np.ndarray
) -> Artifact:
    """Eq. 5 with lambda 1: pushed from the harmful reference only."""
    return ranked(
        stage,
        "sot_push",
        custom_texts,
        lambda: _solved(stage, pull_cost, push_cost, lambda_push=1.0),
        compiles=True,
    )


@rival(kinds={"jax"}, settings=("transport",))
def sot_one_shot_weights(
    stage: Stage, custom_texts: pl.DataFrame, pull_cost: np.ndarray, push_cost: np.ndarray
) -> Artifact:
    """The potentials of uniform weights: one transport problem each, no solve for the weights."""
    return ranked(
        stage,
        "sot_one_shot",
        custom_texts,
        lambda: _solved(stage, pull_cost, push_cost, optimizer="one_shot"),
        compiles=True,
    )


# On the references' vectors


@rival(kinds={"sklearn"})
def logistic_regression_weights(
    stage: Stage,
    custom_texts: pl.DataFrame,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
) -> Artifact:
    """Log-odds of safe against harmful, learnt on the references."""
    from sot_pipeline.selectors.on_references import logistic_regression

    return ranked(
        stage,
        "logistic_regression",
        custom_texts,
        lambda: logistic_regression(
            custom_embeddings,
            safe_embeddings,
            harmful_embeddings,
            **options_of(stage.settings, "logistic_regression"),
        ),
    )


@rival(kinds={"sklearn"})
def knn_weights(
    stage: Stage,
    custom_texts: pl.DataFrame,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
) -> Artifact:
    """Mean similarity to the nearest safe rows minus that to the nearest harmful ones."""
    from sot_pipeline.selectors.on_references import nearest_neighbours

    return ranked(
        stage,
        "knn",
        custom_texts,
        lambda: nearest_neighbours(
            custom_embeddings,
            safe_embeddings,
            harmful_embeddings,
            **options_of(stage.settings, "knn"),
        ),
    )


@rival(kinds={"sklearn"})
def centroid_weights(
    stage: Stage,
    custom_texts: pl.DataFrame,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
) -> Artifact:
    """Similarity to the mean safe row minus that to the mean harmful one."""
    from sot_pipeline.selectors.on_references import centroid

    return ranked(
        stage,
        "centroid",
        custom_texts,
        lambda: centroid(custom_embeddings, safe_embeddings, harmful_embeddings),
    )


# On words


@rival(kinds={"polars"})
def dsir_weights(stage: Stage, custom_texts: pl.DataFrame, safe_texts: pl.DataFrame) -> Artifact:
    """DSIR (Xie et al. 2023): how much likelier a row's words are in the safe reference than in
    the custom set. Refusals of the reference are left out of its target: their words are those of
    what they refuse, and would make harmful rows likely."""

    def score():
        from sot_pipeline.selectors.dsir import dsir, plain_text

        target = _task_rows(safe_texts)
        return dsir(
            [plain_text(row) for row in _conversations(custom_texts)],
            [plain_text(row) for row in _conversations(target)],
            **options_of(stage.settings, "dsir"),
        ), {"num_target_rows": target.height}

    return ranked(stage, "dsir", custom_texts, score)


def _task_rows(safe_texts: pl.DataFrame) -> pl.DataFrame:
    """Rows whose answers do not read as refusals; all of them where every answer does."""
    from sot_pipeline.evaluation.judge import is_refusal

    answers = [not is_refusal(answer or "") for answer in safe_texts["response"]]
    return safe_texts.filter(pl.Series(answers)) if any(answers) else safe_texts


# On hidden states: of the base model, or the encoder's vectors where the task names none


def _by_states(settings: Settings, name: str) -> bool:
    if name == "custom_texts":
        return True
    from_model = settings.base_model.name is not None  # else of the encoder
    return name.endswith("_embeddings") != from_model


def _states(stage: Stage, base_model: Stored, texts: pl.DataFrame, layers=None) -> np.ndarray:
    from sot_pipeline.language_model import load_language_model
    from sot_pipeline.selectors.hidden_states import last_token_states

    path, revision = base_model_path(base_model)
    return last_token_states(
        load_language_model(path, revision=revision),
        _conversations(texts),
        max_length=stage.settings.embedding.max_length,
        layers=layers,
        progress=stage.progress("rows"),
    )


@rival(kinds={"torch", "sklearn"}, settings=("base_model", "embedding.max_length"), uses=_by_states)
def saft_weights(
    stage: Stage,
    custom_texts: pl.DataFrame,
    safe_texts: pl.DataFrame,
    harmful_texts: pl.DataFrame,
    aligned_base_model: Stored,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
) -> Artifact:
    """SAFT (Choi et al. 2024): projection on the leading directions of the rows' hidden states;
    layer, directions and side are chosen on a few rows of the references."""

    def score():
        from sot_pipeline.selectors.saft import saft

        if aligned_base_model is not None:
            sets = [
                _states(stage, aligned_base_model, texts)
                for texts in (custom_texts, _few(safe_texts), _few(harmful_texts))
            ]
        else:
            sets = [
                np.asarray(vectors)[None]
                for vectors in (custom_embeddings, _few(safe_embeddings), _few(harmful_embeddings))
            ]
        num_safe, num_harmful = sets[1].shape[1], sets[2].shape[1]
        fit = saft(
            sets[0],
            np.concatenate(sets[1:], axis=1),
            np.arange(num_safe + num_harmful) >= num_safe,
            **options_of(stage.settings, "saft"),
        )
        return fit.log_weights, {
            "layer": fit.layer,
            "num_directions": fit.num_directions,
            "sign": fit.sign,
            "validation_auroc": fit.validation_auroc,
        }

    return ranked(stage, "saft", custom_texts, score)


def _few(rows: Any) -> Any:
    """Half of SAFT's validation rows, spread over a reference."""
    count = min(len(rows), NUM_VALIDATION_ROWS // 2)
    return rows[np.linspace(0, len(rows) - 1, count).astype(int)]


@rival(kinds={"torch"}, settings=("base_model", "embedding.max_length", "rivals.larf_layer"))
def larf_weights(
    stage: Stage,
    custom_texts: pl.DataFrame,
    safe_texts: pl.DataFrame,
    harmful_texts: pl.DataFrame,
    aligned_base_model: Stored,
) -> Artifact:
    """LARF (2025): similarity to safe minus to harmful anchors at the layer whose scaling moves
    the model's refusals most; the middle one where it moves none. The safe anchors are the whole
    safe reference: its refusals alone, as in the paper, find far less on task rows."""

    def score():
        from sot_pipeline.selectors.larf import larf

        lacks = what_lacks("larf", stage.settings, stage.files)
        if lacks:
            raise InputError(f"the comparison asks for larf, but {lacks}")
        layer = stage.settings.rivals.larf_layer
        if layer is None:
            layer = _sensitive_layer(stage, aligned_base_model, safe_texts)
        states = [
            _states(stage, aligned_base_model, texts, [layer])[0]
            for texts in (custom_texts, safe_texts, harmful_texts)
        ]
        return larf(*states), {"layer": layer}

    return ranked(stage, "larf", custom_texts, score)


def _sensitive_layer(stage: Stage, base_model: Stored, safe_texts: pl.DataFrame) -> int:
    """On prompts of the safe reference: evaluation prompts must not choose anything."""
    from sot_pipeline.evaluation.judge import is_refusal
    from sot_pipeline.language_model import load_language_model
    from sot_pipeline.selectors.larf import sensitive_layer
    from sot_pipeline.texts.conversation import prompt_turns

    path, revision = base_model_path(base_model)
    prompts = [
        prompt_turns(turns, has_response=True) for turns in _conversations(safe_texts)[:MAX_PROBES]
    ]
    lm = load_language_model(path, revision=revision)
    try:
        return sensitive_layer(lm, prompts, is_refusal)
    except InputError as reason:
        stage.log(f"larf: {reason}; taking the middle layer")
        return lm.model.config.get_text_config().num_hidden_layers // 2


# By training


LEARNT_ALIKE = ("rank", "lora_alpha", "target_modules", "max_length")  # as the task's adapter
FINETUNING = tuple(f"finetuning.{name}" for name in LEARNT_ALIKE)


def _recipe(stage: Stage, name: str) -> dict[str, Any]:
    finetuning = stage.settings.finetuning
    return {key: getattr(finetuning, key) for key in LEARNT_ALIKE} | options_of(
        stage.settings, name
    )


@rival(kinds={"torch"}, settings=("base_model", *FINETUNING))
def seal_weights(
    stage: Stage,
    custom_texts: pl.DataFrame,
    safe_texts: pl.DataFrame,
    aligned_base_model: Stored,
) -> Artifact:
    """SEAL (Shen et al. 2025): bilevel training; rows that the model fitted to the safe reference
    finds hard go down."""

    def score():
        from sot_pipeline.selectors.seal import SealRecipe, seal

        path, revision = base_model_path(aligned_base_model)
        found = seal(
            path,
            _conversations(custom_texts),
            _conversations(safe_texts),
            SealRecipe(**_recipe(stage, "seal")),
            base_revision=revision,
            progress=stage.progress("rows"),
        )
        return found.log_weights, {
            "num_truncated": found.num_truncated,
            "num_without_answer": found.num_without_answer,
            "safe_loss_first": float(found.safe_losses[0]),
            "safe_loss_last": float(found.safe_losses[-1]),
        }

    return ranked(stage, "seal", custom_texts, score)


@rival(kinds={"torch"}, settings=("base_model", *FINETUNING))
def toss_weights(
    stage: Stage,
    custom_texts: pl.DataFrame,
    safe_texts: pl.DataFrame,
    harmful_texts: pl.DataFrame,
    aligned_base_model: Stored,
) -> Artifact:
    """TOSS (2026): by token, the loss under a model of the safe reference minus that under a model
    of the harmful one. A row's weight is the mean over its answer; `token_scores.npy` and
    `token_offsets.npy` hold the tokens."""

    def score():
        from sot_pipeline.selectors.toss import TossRecipe, toss

        path, revision = base_model_path(aligned_base_model)
        found = toss(
            path,
            _conversations(custom_texts),
            _conversations(safe_texts),
            _conversations(harmful_texts),
            TossRecipe(**_recipe(stage, "toss")),
            base_revision=revision,
            progress=stage.progress("rows"),
        )
        save_token_scores(stage, found.token_scores)
        return found.log_weights, {"num_tokens": sum(map(len, found.token_scores))}

    return ranked(stage, "toss", custom_texts, score)


def save_token_scores(stage: Stage, scores: list[np.ndarray]) -> None:
    np.save(stage.directory / "token_scores.npy", np.concatenate(scores), allow_pickle=False)
    offsets = np.cumsum([0, *map(len, scores)])
    np.save(stage.directory / "token_offsets.npy", offsets, allow_pickle=False)


def load_token_scores(stored: Stored) -> list[np.ndarray]:
    """What `toss_weights` saved, one array per row."""
    flat, offsets = (
        np.load(stored.directory / f"token_{name}.npy", allow_pickle=False)
        for name in ("scores", "offsets")
    )
    return np.split(flat, offsets[1:-1])


# By a judge's word


@rival(kinds={"judge"}, settings=("evaluation",))  # of the judges that grade, none is a folder
def alpagasus_weights(stage: Stage, custom_texts: pl.DataFrame) -> Artifact:
    """AlpaGasus (Chen et al. 2024): how helpful the task's judge finds each row's answer."""

    def score():
        from sot_pipeline.selectors.judged import judge_scores

        found = judge_scores(make_judge(stage.settings.evaluation), _conversations(custom_texts))
        return found.log_weights, {"num_unreadable": found.num_unreadable}

    return ranked(stage, "alpagasus", custom_texts, score)


@rival(
    kinds={"torch", "huggingface"},
    settings=("rivals.guard_model", "rivals.guard_revision", "rivals.guard_labels"),
    folder=lambda settings: settings.rivals.guard_model,
)
def guard_weights(stage: Stage, custom_texts: pl.DataFrame) -> Artifact:
    """Log-odds of harm by the guard model `rivals.guard_model`, a sequence classifier."""

    def score():
        from sot_pipeline.evaluation.classifier_judge import ClassifierJudge
        from sot_pipeline.selectors.judged import guard_scores

        settings = stage.settings.rivals
        lacks = what_lacks("guard", stage.settings, stage.files)
        if settings.guard_model is None or lacks:
            raise InputError(f"the comparison asks for guard, but {lacks}")
        classifier = ClassifierJudge(
            settings.guard_model, settings.guard_labels, revision=settings.guard_revision
        )
        found = guard_scores(classifier, _conversations(custom_texts))
        return found.log_weights, {"num_unreadable": found.num_unreadable}

    return ranked(stage, "guard", custom_texts, score)


RIVAL_ASSETS: dict[str, CachedAsset] = {
    asset.name: asset
    for asset in (
        sot_balanced_weights,
        sot_pull_weights,
        sot_push_weights,
        sot_one_shot_weights,
        logistic_regression_weights,
        knn_weights,
        centroid_weights,
        dsir_weights,
        saft_weights,
        larf_weights,
        seal_weights,
        toss_weights,
        alpagasus_weights,
        guard_weights,
    )
}
