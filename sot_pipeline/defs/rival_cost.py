"""What the selectors of a comparison will cost before they run, beside the trainings on what they
choose."""

import sys
from collections.abc import Mapping
from typing import Any

from sot_pipeline.defs.estimate import (
    JUDGE_CONCURRENCY,
    JUDGE_REPLY_TOKENS,
    JUDGE_SECONDS,
    TABLE_BYTES,
    JudgeCost,
    StageEstimate,
    estimate_embedding,
    estimate_task,
    estimate_training,
    estimate_weights,
    scoring_seconds,
)
from sot_pipeline.defs.hardware import Device
from sot_pipeline.defs.methods import RIVALS, Method, weights_asset
from sot_pipeline.defs.model_cost import Span
from sot_pipeline.defs.model_shape import ModelShape
from sot_pipeline.defs.settings import FinetuningSettings, Settings
from sot_pipeline.defs.workload import CHARACTERS_PER_TOKEN, TextLengths, Workload, together

# Defaults of the recipes, whose modules import torch
SEAL = {"num_epochs": 3, "batch_size": 64, "micro_batch_size": 8}
TOSS = {"num_epochs": 3.0, "batch_size": 16, "micro_batch_size": 8}
SAFT_ROWS = 50  # of each reference
# Seconds on the CPU, or a model whose size is not known: not estimated
NOT_COUNTED = ("logistic_regression", "knn", "centroid", "dsir", "guard")


def estimate_with_rivals(
    settings: Settings,
    workload: Workload,
    encoder: ModelShape,
    base: ModelShape | None,
    device: Device,
) -> list[StageEstimate]:
    """As `estimate_task`, and each rival's choice of rows before the trainings; the comparison
    names those that are not estimated."""
    stages = estimate_task(settings, workload, encoder, base, device)
    if base is None:
        return stages
    skipped = [rival for rival in named_rivals(settings) if rival in NOT_COUNTED]
    if skipped:
        note = f"; the scores of {', '.join(skipped)} are not counted"
        stages = [stage._replace(basis=stage.basis + note) if stage.asset == "comparison" else stage
                  for stage in stages]  # fmt: skip
    place = next(k for k, stage in enumerate(stages) if stage.asset == "adapter")
    rivals = estimate_rivals(settings, workload, base, device)
    return [*stages[:place], *rivals, *stages[place:]]


def estimate_rivals(
    settings: Settings, workload: Workload, base: ModelShape, device: Device
) -> list[StageEstimate]:
    """Each rival that the comparison names, but for those of `NOT_COUNTED`.

    LARF is without the choice of its layer, where `rivals.larf_layer` does not name it.
    """
    cut = {role: getattr(workload, role).cut(settings.embedding.max_length)
           for role in ("custom", "safe", "harmful")}  # fmt: skip
    stages = []
    for rival in named_rivals(settings):
        asset = weights_asset(rival)
        if rival == "seal":
            stages.append(_seal(asset, settings, workload, base, device))
        elif rival == "toss":
            stages.append(_toss(asset, settings, workload, base, device))
        elif rival in ("saft", "larf"):
            most = SAFT_ROWS if rival == "saft" else None
            few = [_few(cut[role], most) for role in ("safe", "harmful")]
            passed = estimate_embedding(asset, together([cut["custom"], *few]), base, device)
            stages.append(passed._replace(disk=TABLE_BYTES))
        elif rival == "alpagasus":
            stages.append(_alpagasus(asset, settings, workload))
        elif rival not in NOT_COUNTED:  # other solves of the same problem
            sizes = (one.num_rows for one in (workload.custom, workload.safe, workload.harmful))
            stages.append(estimate_weights(*sizes)._replace(asset=asset))
    return stages


def named_rivals(settings: Settings) -> list[str]:
    """The rivals that the comparison names."""
    named = {Method.parse(method).selection for method in settings.comparison.methods}
    return [rival for rival in RIVALS if rival in named]


def grading_cost(workload: Workload, settings: Settings) -> JudgeCost:
    """Requests and tokens of AlpaGasus: each row's answer is graded once by the task's judge."""
    if "alpagasus" not in named_rivals(settings) or settings.evaluation.judge != "openai":
        return JudgeCost(0, 0, 0)
    from sot_pipeline.evaluation.openai_judge import build_request

    rows = workload.custom
    asked = build_request("help", [{"role": "user", "content": ""}], "", None)
    rubric = sum(len(turn["content"]) for turn in asked) / CHARACTERS_PER_TOKEN
    tokens = rows.num_tokens + rows.num_rows * rubric
    return JudgeCost(rows.num_rows, round(tokens), rows.num_rows * JUDGE_REPLY_TOKENS)


def _few(texts: TextLengths, most: int | None) -> TextLengths:
    return texts._replace(num_rows=min(texts.num_rows, most or texts.num_rows))


def _learning(settings: Settings, rival: str, defaults: Mapping[str, Any]) -> FinetuningSettings:
    """How a rival trains, as far as the cost goes: as the task's adapter but for its own words."""
    own = {**defaults, **settings.rivals.options.get(rival, {})}
    known = {name: own[name] for name in own if name in FinetuningSettings.model_fields}
    plain = {"num_steps": None, "packing": False, "gradient_checkpointing": False}
    return settings.finetuning.model_copy(update={**plain, **known})


def _seal(
    asset: str, settings: Settings, workload: Workload, base: ModelShape, device: Device
) -> StageEstimate:
    """Every step learns from as many safe rows as custom ones; a pass is not halved, whatever the
    device's memory."""
    learning = _learning(settings, "seal", SEAL)
    custom, safe = (texts.cut(learning.max_length) for texts in (workload.custom, workload.safe))
    both = together([custom, safe._replace(num_rows=custom.num_rows if safe.num_rows else 0)])
    unlimited = device._replace(memory=sys.maxsize)
    return estimate_training(asset, both, learning, base, unlimited)._replace(disk=TABLE_BYTES)


def _toss(
    asset: str, settings: Settings, workload: Workload, base: ModelShape, device: Device
) -> StageEstimate:
    """A training on each reference, and the custom rows read by both of their models."""
    learning = _learning(settings, "toss", TOSS)
    custom, *references = (
        texts.cut(learning.max_length)
        for texts in (workload.custom, workload.safe, workload.harmful)
    )
    trained = [estimate_training(asset, each, learning, base, device) for each in references]
    passes = scoring_seconds(custom, learning.micro_batch_size, base, device).times(2)
    tokens = custom.num_rows * custom.answer
    return StageEstimate(
        asset,
        sum((one.seconds for one in trained), passes),
        max(one.memory for one in trained),
        TABLE_BYTES + round(8 * tokens),
        "; ".join(one.basis for one in trained) + "; the custom rows read twice",
    )


def _alpagasus(asset: str, settings: Settings, workload: Workload) -> StageEstimate:
    asked = grading_cost(workload, settings).num_requests
    seconds = Span(*JUDGE_SECONDS).times(asked / JUDGE_CONCURRENCY)
    return StageEstimate(asset, seconds, 0, TABLE_BYTES, f"{asked:,} requests to the judge")
