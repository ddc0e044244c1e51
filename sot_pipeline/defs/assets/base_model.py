"""The frozen, safety-aligned model that is fine-tuned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.home import TaskFile
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.store import Artifact, Stored
from sot_pipeline.errors import InputError


def _base_model_identity(files: TaskFile, settings: Settings) -> Mapping[str, Any]:
    name = settings.base_model.name
    if name is None or name == "demo":
        return {}
    if Path(name).is_dir():
        from sot_pipeline.language_model import directory_fingerprint

        return {"directory": directory_fingerprint(Path(name))}
    return {}


@cached_asset(
    group="inputs",
    kinds={"torch", "huggingface"},
    settings=("base_model",),
    source=_base_model_identity,
)
def aligned_base_model(stage: Stage) -> Artifact:
    """The frozen, safety-aligned model: the demo's is trained here, any other is named with
    its resolved revision."""
    name = stage.settings.base_model.name
    if name is None:
        document: dict[str, Any] = {"source": "none", "name": None, "revision": None}
        return Artifact(document=document, metadata={"model": "none configured"})
    if name == "demo":
        from sot_pipeline.demo.aligned_model import train_aligned_model

        info = train_aligned_model(stage.directory / "model", progress=stage.progress("steps"))
        document = {"source": "demo", "name": "demo", "revision": None}
        return Artifact(document=document, metadata={"model": "demo", **info})

    from sot_pipeline.language_model import resolve_model

    resolved, revision = resolve_model(name, revision=stage.settings.base_model.revision)
    source = "directory" if revision is None else "hub"
    document = {"source": source, "name": str(resolved), "revision": revision}
    return Artifact(document=document, metadata={"model": name, "revision": revision or "-"})


def base_model_path(base_model: Stored) -> tuple[str, str | None]:
    """Where the base model lies: a directory or a hub id, and its revision.

    Raises:
        InputError: the task names no base model.
    """
    document = base_model.document
    if document["source"] == "none":
        raise InputError(
            "no base model is set for this task: give one with `--base-model` (a Hugging Face "
            "id or a directory), or base_model.name in the task's file"
        )
    if document["source"] == "demo":
        return str(base_model.directory / "model"), None
    return document["name"], document["revision"]
