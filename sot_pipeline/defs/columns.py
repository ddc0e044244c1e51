"""What every column of every table means, and which columns of other assets it comes from.

Beside the assets, not in them: words change no result. A column is one line: its meaning and the
columns behind it, as `asset.column`. An array or a file as a source (`safe_embeddings`) has no
columns and is left out; the asset graph shows it. Tests hold every line against the tables that
the assets really make.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sot_pipeline.defs.methods import RIVALS, weights_asset

MAX_NAMED = 3  # columns that a description names; the lineage has them all


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        means: What it holds, with unit, range and direction.
        comes_from: The columns it is made from, each as `asset.column`.
    """

    means: str
    comes_from: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        """Meaning and origin: the open-source UI draws no graph of columns."""
        named = ", ".join(self.comes_from[:MAX_NAMED])
        more = len(self.comes_from) - MAX_NAMED
        origin = f"{named} and {more} more" if more > 0 else named
        return f"{self.means} (from {origin})" if origin else self.means

    def sources(self) -> list[tuple[str, str]]:
        """Asset and column of each source."""
        return [(asset, name) for asset, _, name in (s.partition(".") for s in self.comes_from)]


Columns = Mapping[str, Column]


def _c(means: str, *comes_from: str) -> Column:
    return Column(means, comes_from)


def _taken_from(asset: str, columns: Columns, *names: str) -> dict[str, Column]:
    """Columns that are handed on as they are."""
    return {name: _c(columns[name].means, f"{asset}.{name}") for name in names or columns}


# Inputs

TEXTS: Columns = {
    "sample_id": _c("Key of the row: a hash of its conversation and a count of equal rows"),
    "source_id": _c("The row's own `id` in its file; null if it has none"),
    "file": _c("The file the row is from; null where the set is one file"),
    "line": _c("Line, or row number, in that file, from 1"),
    "messages": _c("The whole conversation as JSON: a list of role and content"),
    "prompt": _c("What the user asks"),
    "response": _c("The last answer; null in a reference of prompts alone"),
    "category": _c("Its category as the input says it; null where it says none"),
}
REJECTED: Columns = {
    "text_set": _c("custom, safe or harmful"),
    "file": _c("The file the row is in"),
    "line": _c("Line, or row number, in that file, from 1"),
    "reason": _c("Why it cannot be read, as one of a few fixed words"),
    "detail": _c("What was found there, without the row's text"),
}

# Transport

CENTER: Columns = {
    "coordinate": _c("One coordinate of the point that angles are taken from; no row: the origin")
}
WEIGHTS: Columns = {
    "sample_id": _c("The custom row", "custom_texts.sample_id"),
    "log_weight": _c("Natural log of the learned weight: higher is safer; uniform is -log(n)"),
    "weight": _c("The learned weight w of Eq. 5; all weights sum to 1"),
    "rank": _c("1 for the highest weight"),
    "pull": _c("What closeness to the safe reference adds to the log-weight, nats"),
    "push": _c("What distance from the harmful reference adds to it, nats"),
    "nearest_safe_row": _c("Place of the nearest safe row, from 0"),
    "safe_cost": _c("Cosine cost to that row, 0 to 2: 0 is the same direction"),
    "nearest_harmful_row": _c("Place of the nearest harmful row, from 0"),
    "harmful_cost": _c("Cosine cost to that row, 0 to 2: 0 is the same direction"),
}
CALIBRATION: Columns = {
    "sample_id": _c("The custom row", "custom_texts.sample_id"),
    **{name: _c(WEIGHTS[name].means) for name in ("log_weight", "rank", "pull", "push")},
    "harmful_p_value": _c("Share of held-out harmful rows that score at least as high"),
}

# Purified

DECISIONS: Columns = {
    "sample_id": _c("A row with the text that the decision is about"),
    "decision": _c("keep, drop, or unsure, which changes nothing"),
    "reviewer": _c("Who decided"),
    "note": _c("What they said of it"),
    "decided": _c("When, UTC"),
}
SELECTED: Columns = {
    **_taken_from("custom_texts", TEXTS, "sample_id", "source_id", "line", "messages"),
    **{
        name: _c(WEIGHTS[name].means, f"sample_weights.{name}", f"calibration.{name}")
        for name in ("rank", "log_weight")
    },
    "sample_weight": _c(
        "Weight of the row in fine-tuning; the mean over the kept rows is 1",
        "sample_weights.log_weight",
        "calibration.log_weight",
    ),
}


def _deciding(name: str, means: str | None = None) -> Column:
    """Of the weights that decide: the calibration's where there is one."""
    sources = [f"sample_weights.{name}"]
    if name in CALIBRATION:
        sources.append(f"calibration.{name}")
    return _c(means or WEIGHTS[name].means, *sources)


def _matched(side: str) -> Columns:
    """The rows of a reference that a custom row is matched with most."""
    return {
        f"{side}_ids": _c(
            f"The at most 3 {side} rows that take most of its mass", f"{side}_texts.sample_id"
        ),
        f"{side}_shares": _c("Share of its mass that each takes, 0 to 1"),
        f"{side}_similarities": _c(
            "Cosine similarity to each, -1 to 1",
            f"{side}_texts.sample_id",
        ),
    }


EXPLANATIONS: Columns = {
    "sample_id": _c("The custom row", "sample_weights.sample_id"),
    "kept": _c("Whether the row stays", "selected_samples.sample_id"),
    "rank": _deciding("rank"),
    "log_weight": _deciding("log_weight"),
    "relative_weight": _deciding("log_weight", "n times the learned weight: 1 is uniform"),
    "pull": _deciding("pull"),
    "push": _deciding("push"),
    "nearest_safe": _c(
        "The nearest safe row", "sample_weights.nearest_safe_row", "safe_texts.sample_id"
    ),
    "safe_similarity": _c("Cosine similarity to it, -1 to 1", "sample_weights.safe_cost"),
    "nearest_harmful": _c(
        "The nearest harmful row", "sample_weights.nearest_harmful_row", "harmful_texts.sample_id"
    ),
    "harmful_similarity": _c("Cosine similarity to it, -1 to 1", "sample_weights.harmful_cost"),
    "harmful_p_value": _c(
        "Share of held-out harmful rows that score at least as high; null without a calibration",
        "calibration.harmful_p_value",
    ),
    **_matched("harmful"),
    **_matched("safe"),
    "harmful_category": _c(
        "Category of the harmful rows that take most of the row's mass; null where they have none",
        "harmful_texts.category",
    ),
    "harmful_category_share": _c("Share of that mass at rows of this category"),
    "keep_fraction_needed": _deciding("rank", "Least share of rows kept with this row among them"),
    "false_keep_rate_needed": _c(
        "Least false-keep rate at which a calibrated cut keeps it; null without a calibration",
        "calibration.harmful_p_value",
    ),
    "lambda_change": _c(
        "Lambda at which it would change sides, the transport held as solved; null: at none",
        "sample_weights.pull",
        "sample_weights.push",
    ),
    "disagreeing_methods": _c(
        "Cheap scores that put it on the other side: pull_alone, push_alone, nearest_rows",
        "sample_weights.pull",
        "sample_weights.push",
        "sample_weights.safe_cost",
        "sample_weights.harmful_cost",
    ),
    "far_from_references": _c("Whether neither reference reaches it, so that evidence is weak"),
    "decision": _c("keep or drop, where a reviewer decided", "review_decisions.decision"),
    "reason": _c(
        "One sentence for people: why the row stays or goes",
        "sample_weights.rank",
        "sample_weights.log_weight",
        "sample_weights.safe_cost",
        "sample_weights.harmful_cost",
        "selected_samples.sample_id",
    ),
    "explanation": _c(
        "A paragraph for people: why, how firm that is, and what would change it",
        "sample_weights.rank",
        "sample_weights.pull",
        "sample_weights.push",
        "selected_samples.sample_id",
        "review_decisions.decision",
    ),
}
REMOVED: Columns = {
    **_taken_from("custom_texts", TEXTS, "sample_id", "source_id", "line", "messages"),
    **_taken_from("explanations", EXPLANATIONS, "rank", "log_weight", "reason"),
    **_taken_from(
        "explanations",
        EXPLANATIONS,
        "harmful_category",
        "harmful_category_share",
        "keep_fraction_needed",
        "false_keep_rate_needed",
        "lambda_change",
        "far_from_references",
        "decision",
        "explanation",
    ),
}

MAP: Columns = {
    "text_set": _c("custom, safe or harmful"),
    "sample_id": _c(
        "The row", "custom_texts.sample_id", "safe_texts.sample_id", "harmful_texts.sample_id"
    ),
    "x": _c("Neighbourhoods (t-SNE): rows that are close here are alike"),
    "y": _c("The other coordinate of it"),
    "towards_harm": _c("Along the line from the safe to the harmful centroid; 0 half way"),
    "across": _c("Along the direction in which the rest varies most"),
}
COVERAGE: Columns = {
    "sample_id": _c("The custom row", "custom_texts.sample_id"),
    "uncovered": _c("Whether it lies farther from both references than these reach"),
    "safe_cost": _c("Cosine cost to the nearest safe row, 0 to 2"),
    "harmful_cost": _c("Cosine cost to the nearest harmful row, 0 to 2"),
}

# Adapter

TRAINING: Columns = {
    "sample_id": _c("The row that is learnt from", "selected_samples.sample_id"),
    "messages": _c("Its conversation as JSON", "selected_samples.messages"),
    "sample_weight": _c("Its weight in the loss, mean 1", "selected_samples.sample_weight"),
}
DEMONSTRATIONS: Columns = {
    "sample_id": _c("Row of the harmful reference whose prompt it is", "harmful_texts.sample_id"),
    "messages": _c("That prompt, answered with a refusal, as JSON", "harmful_texts.messages"),
    "source": _c("'own answer': the base model's own refusal; 'generic': a general one"),
}
HARMLESS: Columns = {
    "sample_id": _c(
        "The row whose prompt it is", "safe_texts.sample_id", "training_samples.sample_id"
    ),
    "messages": _c("The prompt as JSON", "safe_texts.messages", "training_samples.messages"),
    "source": _c("'safe reference' or 'kept row'"),
}
STEPS: Columns = {
    "step": _c("Optimiser step, from 1"),
    "loss": _c("Weighted loss of the step, nats per answer token", "training_samples.messages"),
    "learning_rate": _c("Learning rate of the step"),
    "gradient_norm": _c("Norm of the gradient before clipping"),
    "tokens": _c("Tokens of the step", "training_samples.messages"),
    "effective_rows": _c(
        "Rows that the step really learns from: (sum w)^2 / sum w^2",
        "training_samples.sample_weight",
    ),
    "seconds": _c("Time of the step, seconds"),
    "defence_seconds": _c("Part of it that the defence took, seconds"),
}
SCORES: Columns = {
    "method": _c("base, or rows and defence that it was trained with"),
    "seed": _c("Seed of the training"),
    "training_seconds": _c("Time of the training, seconds"),
    "seconds_per_step": _c("Time of an optimiser step, seconds"),
    "defence_seconds_per_step": _c("Part of it that the defence takes, seconds"),
    "peak_memory_bytes": _c("Most memory that the training held, bytes"),
    "score": _c(
        "harmfulness_score and over_refusal: lower is better; helpfulness_score, accuracy and "
        "average: higher is better"
    ),
    "value": _c("The score, a mean over prompts, 0 to 1"),
    "low": _c("Lower end of its 95 % interval over prompts"),
    "high": _c("Upper end of its 95 % interval over prompts"),
    "num_judged": _c("Answers that were judged"),
    "num_missing": _c("Answers whose verdict could not be read"),
}

# Comparison

RIVAL: Columns = {
    "sample_id": _c("The custom row", "custom_texts.sample_id"),
    "log_weight": _c("The method's score: higher is better to keep"),
    "rank": _c("1 for the highest score"),
}
SELECTIONS: Columns = {
    "method": _c("The method that scores the rows"),
    "sample_id": _c("The custom row", "custom_texts.sample_id"),
    "log_weight": _c(
        "What it makes of the row: higher is better to keep",
        "sample_weights.log_weight",
        "calibration.log_weight",
        *(f"{weights_asset(name)}.log_weight" for name in RIVALS),
    ),
    "kept": _c("Whether it would keep the row", "selected_samples.sample_id"),
    "sample_weight": _c(
        "Weight of the row in a training on its choice", "selected_samples.sample_weight"
    ),
}
QUALITY: Columns = {
    "method": _c("The method", "compared_selections.method"),
    "source": _c("Where the rows are from, as the labels say; one source stands for all"),
    "measure": _c("auroc, average precision, harm left, benign rows and refusals lost"),
    "value": _c(
        "The measure, 0 to 1", "compared_selections.log_weight", "compared_selections.kept"
    ),
    "low": _c("Lower end of its 95 % interval over rows"),
    "high": _c("Upper end of its 95 % interval over rows"),
    "difference": _c("The measure minus that of `sot` on the same rows"),
    "difference_low": _c("Lower end of the difference's 95 % interval"),
    "difference_high": _c("Upper end of the difference's 95 % interval"),
    "num_rows": _c("Rows that the measure is about"),
}
COMPARED: Columns = {
    name: _c(column.means, f"evaluation.{name}") for name, column in SCORES.items()
}
EXPERIMENT: Columns = {
    "variation": _c("What was changed"),
    "parameter": _c("Its value where a number is swept"),
    "seed": _c("Seed of the training"),
    **{name: _c(SCORES[name].means) for name in ("score", "value", "low", "high")},
    "num_rows": _c("Rows it was trained on"),
    "harmful_left": _c("Share of the harmful rows that stayed; null without labels"),
    "benign_lost": _c("Share of the benign rows that went; null without labels"),
    "refusals_lost": _c("Share of the refusals that went; null without labels"),
}

# Report

CHANGES: Columns = {
    "change": _c("added, gone, newly_removed or newly_kept", "explanations.kept"),
    "text_set": _c("custom, safe or harmful"),
    "sample_id": _c(
        "The row that changed",
        "custom_texts.sample_id",
        "safe_texts.sample_id",
        "harmful_texts.sample_id",
    ),
    **{
        name: _c(TEXTS[name].means, *(f"{s}_texts.{name}" for s in ("custom", "safe", "harmful")))
        for name in ("source_id", "file", "line")
    },
    "rank_before": _c("Its rank in the purification before"),
    "rank_after": _c("Its rank now", "explanations.rank"),
    "log_weight_before": _c("Its log-weight in the purification before"),
    "log_weight_after": _c("Its log-weight now", "explanations.log_weight"),
    "because": _c("The kind of change it leans on most, such as 'harmful row added'"),
    "because_of": _c(
        "The reference row that came or went, or the reviewer",
        "safe_texts.sample_id",
        "harmful_texts.sample_id",
    ),
    "share": _c("Share of the row's transported mass at that reference row, 0 to 1"),
}

COLUMNS: Mapping[str, Columns] = {
    "custom_texts": TEXTS,
    "safe_texts": TEXTS,
    "harmful_texts": TEXTS,
    "rejected_rows": REJECTED,
    "cost_center": CENTER,
    "sample_weights": WEIGHTS,
    "calibration": CALIBRATION,
    "review_decisions": DECISIONS,
    "selected_samples": SELECTED,
    "explanations": EXPLANATIONS,
    "removed_samples": REMOVED,
    "embedding_map": MAP,
    "reference_coverage": COVERAGE,
    "training_samples": TRAINING,
    "safety_demonstrations": DEMONSTRATIONS,
    "harmless_prompts": HARMLESS,
    "adapter": STEPS,  # a defence may add columns of its own
    "evaluation": SCORES,
    **{weights_asset(name): RIVAL for name in RIVALS},
    "compared_selections": SELECTIONS,
    "selection_quality": QUALITY,
    "comparison": COMPARED,
    "ablation": EXPERIMENT,
    "lambda_sweep": EXPERIMENT,
    "keep_sweep": EXPERIMENT,
    "contamination_sweep": EXPERIMENT,
    "embedder_swap": EXPERIMENT,
    "purification_changes": CHANGES,
}
