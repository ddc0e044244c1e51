"""Checkpoints from which training goes on exactly: safetensors and JSON, published by a rename."""

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sot_pipeline.durable import to_disk


class Checkpoint(NamedTuple):
    """State after `step` optimiser steps; tensors by parameter name, the defence's by its own."""

    step: int
    trace: list[dict[str, float]]
    parameters: dict[str, Tensor]
    moments: dict[str, Tensor]
    defence: dict[str, Tensor]


def save_checkpoint(
    directory: Path,
    *,
    plan: Mapping[str, Any],
    step: int,
    trace: Sequence[Mapping[str, float]],
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    defence: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint beside the older one, publish it, then drop the older ones.

    One process writes to a directory. What it writes is on the disk before it is published, so
    a crash at any moment leaves the older checkpoint or the new one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for abandoned in directory.glob("building-*"):
        shutil.rmtree(abandoned)
    building = directory / f"building-{uuid.uuid4().hex}"
    building.mkdir()
    _save(parameters, building / "parameters.safetensors")
    _save(defence, building / "defence.safetensors")
    moments = {
        f"{name}.{key}": value.detach().cpu().reshape(-1 if value.ndim == 0 else value.shape)
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }
    save_file(moments, building / "moments.safetensors")
    state = {"plan": dict(plan), "step": step, "trace": list(trace)}
    (building / "state.json").write_text(json.dumps(state))
    for path in (*building.iterdir(), building):
        to_disk(path)
    published = directory / f"step-{step:08d}-{uuid.uuid4().hex}"
    building.rename(published)
    to_disk(directory)
    for older in directory.glob("step-*"):
        if older != published:
            shutil.rmtree(older)


def load_checkpoint(directory: Path, plan: Mapping[str, Any]) -> Checkpoint | None:
    """The newest whole checkpoint of the same plan, or None."""
    for path in sorted(directory.glob("step-*"), reverse=True):
        try:
            state = json.loads((path / "state.json").read_text())
            if state["plan"] == json.loads(json.dumps(dict(plan))):
                return Checkpoint(
                    step=state["step"],
                    trace=state["trace"],
                    parameters=load_file(path / "parameters.safetensors"),
                    moments=load_file(path / "moments.safetensors"),
                    defence=load_file(path / "defence.safetensors"),
                )
        except (OSError, ValueError, KeyError, SafetensorError):
            continue  # damaged by something else than this module: as if it were not there
    return None


def restore(
    checkpoint: Checkpoint,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put a checkpoint's tensors back into the model and its optimiser."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(checkpoint.parameters[name])
            prefix = f"{name}."
            optimizer.state[parameter] = {
                key.removeprefix(prefix): (
                    value.reshape(()) if key.endswith(".step") else value.to(parameter.device)
                )
                for key, value in checkpoint.moments.items()
                if key.startswith(prefix)
            }


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)
