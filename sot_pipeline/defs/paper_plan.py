"""The dry run of a preset: every setting and where it comes from, sources and licences, and what
each asset will take on a device. No weights and no network are needed."""

from collections.abc import Mapping
from typing import Any

from sot_pipeline.defs.dry_run import task_shapes
from sot_pipeline.defs.estimate import (
    StageEstimate,
    estimate_training,
    judge_cost,
    num_models_judged,
)
from sot_pipeline.defs.hardware import Device
from sot_pipeline.defs.model_shape import ModelShape
from sot_pipeline.defs.paper import FIXED, Preset
from sot_pipeline.defs.rival_cost import estimate_with_rivals, grading_cost
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.workload import Workload
from sot_pipeline.texts.contaminate import Draw

# Appendix A11: seconds and GB at the peak. Hardware, model and custom set are not stated.
PAPER_COST = {
    "selection": (11 * 60 + 8, 30.61),
    "fine-tuning": (33 * 60 + 56, 22.47),
    "plain fine-tuning": (38 * 60 + 19, 27.41),
}
SELECTION = ("safe_embeddings", "harmful_embeddings", "custom_embeddings", "pull_cost",
             "push_cost", "sample_weights")  # fmt: skip


def make_plan(
    preset: Preset,
    settings: Settings,
    origin: Mapping[str, str],
    draw: Draw,
    workload: Workload,
    device: Device,
) -> dict[str, Any]:
    """Everything that `sot paper plan` tells, ready for JSON.

    Raises:
        InputError: the size of a model is not known.
    """
    encoder, base = task_shapes(settings)
    assert base is not None  # presets name one
    stages = estimate_with_rivals(settings, workload, encoder, base, device)
    models = _models(preset, settings, encoder, base)
    judged, times = judge_cost(workload, settings), num_models_judged(settings)
    graded = grading_cost(workload, settings)
    return {
        "preset": preset.name,
        "device": {**device._asdict(), "utilisation": list(device.utilisation)},
        "settings": _settings(preset, settings, origin),
        "fixed": [
            {"name": name, "value": value, "origin": whose, "note": note}
            for name, (value, whose, note) in FIXED.items()
        ],
        "draw": [
            {"name": name, "value": value, **_mark(preset, name, value)}
            for name, value in draw._asdict().items()
        ],
        "sources": [{"role": role, **source._asdict()} for role, source in preset.sources.items()],
        "models": models,
        "texts": {
            role: texts._asdict() for role, texts in workload._asdict().items() if texts.num_rows
        },
        "stages": [_stage(stage, device) for stage in stages],
        "total": {
            "seconds": [sum(stage.seconds[end] for stage in stages) for end in (0, 1)],
            "memory": max(stage.memory for stage in stages),
            "disk": sum(stage.disk for stage in stages),
            "download": _download(preset, models),
        },
        "judge": {
            "models": times,
            "graded_rows": graded.num_requests,
            "requests": times * judged.num_requests + graded.num_requests,
            "input_tokens": times * judged.input_tokens + graded.input_tokens,
            "output_tokens": times * judged.output_tokens + graded.output_tokens,
        },
        "paper_cost": _against_the_paper(stages, settings, workload, base, device),
    }


def _settings(
    preset: Preset, settings: Settings, origin: Mapping[str, str]
) -> list[dict[str, Any]]:
    rows = []
    for block, fields in settings.model_dump(mode="json").items():
        for field, value in fields.items():
            key = f"{block}.{field}"
            marked = preset.settings.get(key)
            is_its_own = marked is not None and origin[key] == marked.origin
            note = marked.note if marked is not None and is_its_own else ""
            rows.append({"setting": key, "value": value, "origin": origin[key], "note": note})
    return rows


def _mark(preset: Preset, name: str, value: Any) -> dict[str, str]:
    marked = preset.draw[name]
    if marked.value != value:
        return {"origin": "by hand", "note": f"{marked.origin}: {marked.value}"}
    return {"origin": marked.origin, "note": marked.note}


def _models(
    preset: Preset, settings: Settings, encoder: ModelShape, base: ModelShape
) -> list[dict[str, Any]]:
    model, embedding = settings.base_model, settings.embedding
    rows = [("backbone", model.name, model.revision, base)]
    if embedding.encoder != "base":
        rows.append(("encoder", embedding.encoder, embedding.revision, encoder))
    return [
        {
            "role": role,
            "name": name,
            "revision": revision,
            "licence": preset.model_licences.get(str(name), "not known"),
            "parameters": shape.num_parameters,
            "shape": shape.source,
        }
        for role, name, revision, shape in rows
    ]


def _stage(stage: StageEstimate, device: Device) -> dict[str, Any]:
    return {
        "asset": stage.asset,
        "seconds": list(stage.seconds),
        "memory": stage.memory,
        "disk": stage.disk,
        "fits": stage.memory <= device.memory,
        "basis": stage.basis,
    }


def _download(preset: Preset, models: list[dict[str, Any]]) -> int:
    """Bytes of the models in bfloat16 and of the data sets' files."""
    parameters = {(one["name"], one["revision"]): one["parameters"] for one in models}
    texts = {source.name: source.num_bytes for source in preset.sources.values()}
    return 2 * sum(parameters.values()) + sum(texts.values())


def _against_the_paper(
    stages: list[StageEstimate],
    settings: Settings,
    workload: Workload,
    base: ModelShape,
    device: Device,
) -> list[dict[str, Any]]:
    whole = workload.custom.cut(settings.finetuning.max_length)
    parts = {
        "selection": [stage for stage in stages if stage.asset in SELECTION],
        "fine-tuning": [stage for stage in stages if stage.asset == "adapter"],
        "plain fine-tuning": [estimate_training("sft", whole, settings.finetuning, base, device)],
    }
    rows = []
    for part, (seconds, gigabytes) in PAPER_COST.items():
        low, high = (sum(stage.seconds[end] for stage in parts[part]) for end in (0, 1))
        memory = max(stage.memory for stage in parts[part])
        rows.append(
            {
                "part": part,
                "paper_seconds": seconds,
                "seconds": [low, high],
                "seconds_over_paper": [low / seconds, high / seconds],
                "paper_gigabytes": gigabytes,
                "gigabytes": memory / 1e9,
                "gigabytes_over_paper": memory / 1e9 / gigabytes,
            }
        )
    return rows
