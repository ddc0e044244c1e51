"""Methods side by side: the rows that each would keep, how good that choice is where the truth is
known, and the same fine-tuning on each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.evaluation import evaluation_files, judge_name
from sot_pipeline.defs.assets.rivals import load_token_scores
from sot_pipeline.defs.assets.texts import read_beside
from sot_pipeline.defs.assets.transport import deciding_weights, unless_top_k
from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
from sot_pipeline.defs.defended import Safety
from sot_pipeline.defs.methods import RIVALS, Method, read_by, weights_asset
from sot_pipeline.defs.rivals import compared, what_lacks
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.side_by_side import Training, train_and_evaluate
from sot_pipeline.defs.sources import file_identity
from sot_pipeline.defs.store import Artifact, Stored
from sot_pipeline.errors import InputError

SELECTIONS_SCHEMA = {
    "method": pl.String,
    "sample_id": pl.String,
    "log_weight": pl.Float64,
    "kept": pl.Boolean,
    "sample_weight": pl.Float64,
}
SOT_WITHOUT_CUT = "sot_reweight"
RIVALS_CONVERGED = CheckSpec(
    "rivals_converged", "The transports that are compared reached their tolerance."
)
RANDOM_SEED = 0  # of the random removal whose quality is shown; trainings draw one per seed


def _methods(settings: Settings) -> list[Method]:
    """What the task asks for and, for the further seeds, its adapter's own method."""
    asked = [Method.parse(method) for method in settings.comparison.methods]
    return list(dict.fromkeys([*asked, settings.own_method]))


def _selections(settings: Settings) -> list[str]:
    return list(dict.fromkeys([*compared(settings), "sot"]))


def _reads_selection(settings: Settings, name: str) -> bool:
    """A rival's weights are read if the comparison names it, the calibration if it cuts."""
    rival = name.removesuffix("_weights")
    return unless_top_k(settings, name) and (rival not in RIVALS or rival in _selections(settings))


@cached_asset(
    group="comparison",
    kinds={"polars", "duckdb"},
    settings=("selection.temperature", "selection.clip_low", "selection.clip_high"),
    parts_of_settings=lambda settings: {"selections": _selections(settings)},
    uses=_reads_selection,
    checks=(RIVALS_CONVERGED,),
)
def compared_selections(
    stage: Stage,
    custom_texts: pl.DataFrame,
    sample_weights: Stored,
    calibration: Stored,
    selected_samples: pl.DataFrame,
    sot_balanced_weights: Stored,
    sot_pull_weights: Stored,
    sot_push_weights: Stored,
    sot_one_shot_weights: Stored,
    logistic_regression_weights: Stored,
    knn_weights: Stored,
    centroid_weights: Stored,
    dsir_weights: Stored,
    saft_weights: Stored,
    larf_weights: Stored,
    seal_weights: Stored,
    toss_weights: Stored,
    alpagasus_weights: Stored,
    guard_weights: Stored,
) -> Artifact:
    """What each compared method makes of every custom row: its log-weight, whether the row stays,
    and the weight it is trained with. All keep as many rows as the task's own cut."""
    rivals = [
        sot_balanced_weights, sot_pull_weights, sot_push_weights, sot_one_shot_weights,
        logistic_regression_weights, knn_weights, centroid_weights, dsir_weights, saft_weights,
        larf_weights, seal_weights, toss_weights, alpagasus_weights, guard_weights,
    ]  # fmt: skip
    own = _Own(
        custom_texts, deciding_weights(sample_weights.table(), calibration), selected_samples
    )
    scores = {stored.asset: stored for stored in rivals if stored is not None}
    names = [name for name in _selections(stage.settings) if name != "sft_clean"]
    tables = [_selected(stage.settings, name, own, scores) for name in names]
    table = pl.concat(tables) if tables else pl.DataFrame(schema=SELECTIONS_SCHEMA)
    # a warm start's time is that of an edit, not of the method
    cold = sample_weights.document["started"] == "cold"
    solve_seconds = sample_weights.document["solve_seconds"] if cold else None
    stuck = [
        stored.asset.removesuffix("_weights")
        for stored in scores.values()
        if stored.document.get("converged") is False
    ]
    return Artifact(
        table=table,
        document={
            "costs": _costs(table, scores, solve_seconds),
            "num_kept": selected_samples.height,
        },
        metadata={"methods": ", ".join(names), "num_kept": selected_samples.height},
        checks=(
            check(
                RIVALS_CONVERGED,
                not stuck,
                f"{', '.join(stuck)} did not reach transport.tolerance: raise transport.max_steps, "
                "or read their figures with care"
                if stuck
                else "every transport that is compared reached its tolerance",
            ),
        ),
    )


def _costs(
    table: pl.DataFrame, scores: dict[str, Stored], solve_seconds: float | None
) -> dict[str, dict[str, Any]]:
    """What scoring the rows took, and how far each method removes the rows that sot removes."""
    kept = {str(name): rows["kept"] for (name,), rows in table.group_by(["method"])}
    own = ~kept["sot"] if "sot" in kept else None
    costs: dict[str, dict[str, Any]] = {}
    for name, stays in kept.items():
        stored = scores.get(weights_asset(name))
        known = {} if stored is None else stored.document
        costs[name] = {key: known.get(key) for key in ("seconds", "peak_memory_bytes")}
        if own is not None and own.any():
            costs[name]["removed_in_common"] = 1 - float(np.mean(stays.filter(own).to_numpy()))
    costs.setdefault("sot", {})["seconds"] = solve_seconds
    return costs


class _Own(NamedTuple):
    """The task's rows and its own weights and cut."""

    custom: pl.DataFrame
    weights: pl.DataFrame
    selected: pl.DataFrame


def _selected(settings: Settings, name: str, own: _Own, scores: dict[str, Stored]) -> pl.DataFrame:
    from sot_pipeline.selection import top_k, training_weights

    ids, num_rows = own.custom["sample_id"], own.custom.height
    ones = np.ones(num_rows)
    if name in ("sot", "sot_cut"):
        joined = own.custom.select("sample_id").join(
            own.selected.select("sample_id", "log_weight", "sample_weight"),
            on="sample_id",
            how="left",
            maintain_order="left",
        )
        kept = joined["sample_weight"].is_not_null().to_numpy()
        weights = joined["sample_weight"].fill_null(0).to_numpy() if name == "sot" else 1.0 * kept
        return _table(name, ids, own.weights["log_weight"].to_numpy(), kept, weights)
    if name == SOT_WITHOUT_CUT:
        log_weights = own.weights["log_weight"].to_numpy()
        clip = settings.selection.clip_low, settings.selection.clip_high
        kept = np.ones(num_rows, dtype=bool)
        temperature = settings.selection.temperature
        weights = training_weights(log_weights, kept, temperature=temperature, clip=clip)
        return _table(name, ids, log_weights, kept, weights)
    if name == "sft":
        return _table(name, ids, 0 * ones, ones > 0, ones)
    if name == "random":
        log_weights = random_log_weights(num_rows, RANDOM_SEED)
    else:
        log_weights = scores[weights_asset(name)].table()["log_weight"].to_numpy()
    kept = top_k(log_weights, keep_count=own.selected.height)
    if name == "toss":  # drops tokens, not rows
        return _table(name, ids, log_weights, kept, ones)
    return _table(name, ids, log_weights, kept, 1.0 * kept)


def random_log_weights(num_rows: int, seed: int) -> np.ndarray:
    """Of a removal at random."""
    return np.random.default_rng(seed).permutation(num_rows).astype(np.float64)


def _table(
    name: str, ids: pl.Series, log_weights: np.ndarray, kept: np.ndarray, weights: np.ndarray
) -> pl.DataFrame:
    columns = {
        "method": [name] * len(ids),
        "sample_id": ids,
        "log_weight": log_weights,
        "kept": kept,
        "sample_weight": weights,
    }
    return pl.DataFrame(columns, schema=SELECTIONS_SCHEMA)


@cached_asset(
    group="comparison",
    kinds={"polars", "duckdb"},
    settings=("evaluation.num_resamples",),
    source=lambda files, settings: (
        {"labels": file_identity(files.labels)} if files.labels is not None else {}
    ),
)
def selection_quality(
    stage: Stage, custom_texts: pl.DataFrame, compared_selections: pl.DataFrame
) -> Artifact:
    """How well each method's scores find the harmful rows, where the task's file names `labels`:
    AUROC, average precision, harm left, benign rows and refusals lost, by source, with intervals
    and paired differences to `sot`."""
    from sot_pipeline.selection_quality import HARMFUL, SCHEMA, Selected
    from sot_pipeline.selection_quality import selection_quality as quality
    from sot_pipeline.texts.labels import read_labels

    if stage.files.labels is None:
        told = "not measured: the task's file names no labels"
        return Artifact(table=pl.DataFrame(schema=SCHEMA), metadata={"selection_quality": told})
    labels = custom_texts.select("sample_id", "source_id").join(
        read_labels(stage.files.labels), on="source_id", how="left", maintain_order="left"
    )
    known = labels["label"].is_not_null()
    if known.any() and not (labels["label"] == HARMFUL).any():
        told = f"not measured: none of the {known.sum():,} labelled rows is harmful"
        return Artifact(table=pl.DataFrame(schema=SCHEMA), metadata={"selection_quality": told})
    if not known.any():
        raise InputError(
            f"{stage.files.labels}: none of its ids is one of the {custom_texts.height:,} custom "
            "rows; `id` must be what the custom set's rows are called in their own `id` column"
        )
    mask = known.to_numpy()
    selections = {
        str(name): Selected(rows["log_weight"].to_numpy()[mask], rows["kept"].to_numpy()[mask])
        for (name,), rows in compared_selections.group_by(["method"], maintain_order=True)
    }
    labels = labels.filter(known)
    table = quality(
        selections,
        labels["label"].to_list(),
        labels["source"].to_list(),
        num_resamples=stage.settings.evaluation.num_resamples,
    )
    counts = {str(label): count for label, count in labels["label"].value_counts().iter_rows()}
    numbers = {"num_labelled": labels.height, "num_unlabelled": custom_texts.height - labels.height}
    return Artifact(
        table=table,
        document=numbers | {"labels": counts},
        metadata=numbers | {f"num_{label}": count for label, count in sorted(counts.items())},
    )


Select = Callable[[int], tuple[pl.DataFrame, np.ndarray]]  # rows and weights for a seed


def _defences(settings: Settings) -> list[str]:
    return sorted({method.defence for method in _methods(settings)})


def _compares(settings: Settings, name: str) -> bool:
    if name == "toss_weights":
        return "toss" in _selections(settings)
    return name not in Safety._fields or name in read_by(_defences(settings))


@cached_asset(
    group="comparison",
    kinds={"torch", "duckdb"},
    settings=("finetuning", "evaluation", "comparison", "texts"),
    parts_of_settings=lambda settings: {
        "defence": {name: settings.defence.of(name) for name in _defences(settings)}
    },
    uses=_compares,
    source=lambda files, settings: {
        **evaluation_files(files, settings),
        **({"clean": file_identity(files.custom_clean)} if files.custom_clean else {}),
    },
)
def comparison(
    stage: Stage,
    custom_texts: pl.DataFrame,
    compared_selections: pl.DataFrame,
    training_samples: pl.DataFrame,
    aligned_base_model: Stored,
    evaluation: pl.DataFrame,
    safety_demonstrations: Stored,
    harmless_prompts: Stored,
    safe_texts: Stored,
    toss_weights: Stored,
) -> Artifact:
    """The same fine-tuning on other selections of the same rows and under other defences, as
    `comparison.methods` asks, each once per seed, and the adapter's own for the further seeds."""
    rows = _Rows(stage, custom_texts, compared_selections, training_samples, toss_weights)
    safety = Safety(safety_demonstrations, harmless_prompts, safe_texts)
    own = stage.settings.own_method, stage.settings.finetuning.seed
    methods = _methods(stage.settings)
    trainings = [
        Training(str(method), seed, method.defence, *rows.of(method.selection, seed))
        for seed in stage.settings.comparison.seeds
        for method in methods
        if (method, seed) != own  # the adapter asset is this one
    ]
    tables, trained = train_and_evaluate(stage, aligned_base_model, safety, trainings, "comparison")
    return Artifact(
        table=pl.concat([evaluation, *tables]),
        document={"judge": judge_name(stage), "own_method": str(own[0])},
        metadata={"methods": ", ".join(["base", *map(str, methods)])},
        parts={"trained_methods": trained},
    )


class _Rows(NamedTuple):
    """What each method trains on."""

    stage: Stage
    custom: pl.DataFrame
    selections: pl.DataFrame
    purified: pl.DataFrame
    toss: Stored | None

    def of(
        self, selection: str, seed: int
    ) -> tuple[pl.DataFrame, np.ndarray, list[np.ndarray] | None]:
        """Rows, weights and, where tokens are dropped, which of them stay."""
        if selection in ("sot", "sot_cut"):  # what the adapter learnt, which a tolerance may keep
            weights = self.purified["sample_weight"].to_numpy()
            return self.purified, weights if selection == "sot" else np.ones(len(weights)), None
        if selection == "sft_clean":
            return *self._clean(), None
        chosen = self.selections.filter(pl.col("method") == selection)
        weights = chosen["sample_weight"].to_numpy()
        num_kept = int(chosen["kept"].sum())
        if selection == "random":
            from sot_pipeline.selection import top_k

            log_weights = random_log_weights(self.custom.height, seed)
            weights = 1.0 * top_k(log_weights, keep_count=num_kept)
        if selection == "toss" and self.toss is not None:
            from sot_pipeline.selectors.toss import kept_tokens

            dropped = 1 - num_kept / self.custom.height
            return self.custom, weights, kept_tokens(load_token_scores(self.toss), dropped)
        rows = np.flatnonzero(weights > 0)
        return self.custom[rows.tolist()], weights[rows], None

    def _clean(self) -> tuple[pl.DataFrame, np.ndarray]:
        if self.stage.files.custom_clean is None:
            lacks = what_lacks("sft_clean", self.stage.settings, self.stage.files)
            raise InputError(f"comparison.methods asks for sft_clean, but {lacks}")
        clean = read_beside(self.stage, self.stage.files.custom_clean)
        return clean, np.ones(clean.height)
