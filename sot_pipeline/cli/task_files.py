"""Task files from flags: what a command line says becomes what the asset graph reads."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.settings import (
    PACKAGED_MODELS,
    Settings,
    environment_layer,
    file_layer,
    resolve_settings,
)
from sot_pipeline.errors import InputError

# What `finetune` and `evaluate` were told outlives a new purification of the same task
KEPT_BLOCKS = {"base_model", "finetuning", "defence", "evaluation", "rivals", "comparison",
               "experiments"}  # fmt: skip
KEPT_FILES = ("licences", "custom_clean", "labels", "evaluation", "experiments")
# Folders and files given for these are stored whole: a task also runs from elsewhere
MODEL_SETTINGS = {"embedding.encoder", "base_model.name", "evaluation.judge_classifier",
                  "evaluation.judge_encoder", "rivals.guard_model", "experiments.encoders"}  # fmt: skip
FILE_SETTINGS = {"evaluation.judge_labelled"}
# Giving one of a pair empties the other
EXCLUDES = {
    "selection.keep_count": ["keep_fraction"],
    "selection.keep_fraction": ["keep_count"],
    "finetuning.num_steps": ["num_epochs"],
    "finetuning.num_epochs": ["num_steps"],
}
# Each of these is read by one method only: giving it chooses the method
METHOD_OF = {
    "selection.keep_fraction": "top_k",
    "selection.keep_count": "top_k",
    "selection.max_false_keep_rate": "calibrated",
    "selection.held_out_share": "calibrated",
    "selection.split_seed": "calibrated",
}


def prepare_task(
    home: Home,
    name: str | None,
    custom: Sequence[str],
    safe: Sequence[str],
    harmful: Sequence[str],
    flags: Mapping[str, Any],
    assignments: list[str],
) -> str:
    """Write the task file that the flags describe, or change the one that --task names.

    Args:
        custom, safe, harmful: sources of the text sets (files, globs, folders, URLs); none given
            leaves what the task has.
    """
    sets = {"custom": custom, "safe": safe, "harmful": harmful}
    if not custom:
        if name is None:
            raise InputError("give a file of rows, or --task with the name of an earlier task")
        task = home.read_task(name)
        given = {key: _found(sources, home) for key, sources in sets.items() if sources}
        if "harmful" in given:
            given["harmful"] += _accepted(home, name, given["harmful"])
        save_settings(home, name, task.model_copy(update=given), flags, assignments)
        return name
    missing = [f"--{key}" for key in ("safe", "harmful") if not sets[key]]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} missing: the weights need a trusted safe reference "
            "(--safe) and a harmful one (--harmful)"
        )
    name = name or task_name(custom)
    earlier = home.read_task(name) if home.task_path(name).exists() else None
    references = _found(harmful, home)
    task = TaskFile(
        custom=_found(custom, home),
        safe=_found(safe, home),
        harmful=references + _accepted(home, name, references),
    )
    if earlier is not None:
        # the same file purified again keeps what was told about it since
        kept = {b: v for b, v in earlier.settings.items() if b in KEPT_BLOCKS}
        files = {name: getattr(earlier, name) for name in KEPT_FILES}
        task = task.model_copy(update={"settings": kept, **files})
    save_settings(home, name, task, flags, assignments)
    return name


def _found(sources: Sequence[str], home: Home) -> tuple[str, ...]:
    """Sources as a task names them, local ones whole: a task also runs from elsewhere.

    Raises:
        InputError: one of them is not there, which is better told before anything is written.
    """
    from sot_pipeline.texts.fetch import located
    from sot_pipeline.texts.file_systems import is_url

    whole = tuple(s if is_url(s) else os.path.abspath(s) for s in map(str, sources))
    for source in whole:
        located(source, home.fetched)
    return whole


def _accepted(home: Home, name: str, harmful: tuple[str, ...]) -> tuple[str, ...]:
    """The task's accepted reference rows, which another harmful reference does not undo."""
    from sot_pipeline.references.ledger import ACCEPTED

    path = home.references(name) / ACCEPTED
    return (str(path),) if path.exists() and str(path) not in harmful else ()


def task_name(sources: Sequence[str]) -> str:
    """A name for the task of these custom rows: of the file, of the hub dataset, or of the
    folder where a pattern or several files leave no name."""
    first = str(sources[0])
    hub = re.match(r"hf://datasets/[^/]+/([^/@]+)", first)
    path = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]+://|[?#].*$", "", first) if "://" in first else first
    parts = [part for part in os.path.normpath(path).split("/") if part not in ("", "..", ".")]
    if len(sources) > 1 and len(parts) > 1:
        parts.pop()
    candidates = [hub[1]] if hub else list(reversed(parts))
    names = (_plain(part) for part in candidates)
    return next((name for name in names if name), "task")


def _plain(part: str) -> str:
    stem = re.sub(r"\[[^]]*\]", "", part.split(".")[0]).lower()
    return re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_")[:64]


def save_settings(
    home: Home, name: str, task: TaskFile, flags: Mapping[str, Any], assignments: list[str]
) -> None:
    """Write the task with what a command line says of its settings.

    Raises:
        InputError: a value that cannot be; then nothing is written.
    """
    fields = _changed_fields(task, flags, assignments)
    _resolved(home, fields)
    home.write_task(name, task.model_copy(update={"settings": fields}))


def changed_settings(
    home: Home,
    task: TaskFile,
    assignments: list[str],
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings that `save_settings` would make; nothing is written.

    Raises:
        InputError: a value that cannot be.
    """
    return _resolved(home, _changed_fields(task, flags or {}, assignments))


def _resolved(home: Home, fields: dict[str, dict[str, Any]]) -> Settings:
    layers = [file_layer(home.root / "settings.yaml"), environment_layer()]
    settings, _ = resolve_settings([*layers, ("command line", fields)])
    return settings


def _changed_fields(
    task: TaskFile, flags: Mapping[str, Any], assignments: list[str]
) -> dict[str, dict[str, Any]]:
    settings = {block: dict(fields) for block, fields in task.settings.items()}
    chosen = {key: value for key, value in flags.items() if value is not None}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or key.count(".") != 1:
            raise InputError(f"--set {assignment}: expected block.field=value")
        chosen[key] = yaml.safe_load(value)
    chosen |= _chosen_method(chosen)
    for key, value in chosen.items():
        block, field = key.split(".")
        settings.setdefault(block, {})[field] = _whole(key, value)
        for other in EXCLUDES.get(key, ()):
            settings[block][other] = None
    return settings


def _whole(key: str, value: Any) -> Any:
    """A setting with the local files and folders that it names as absolute paths."""
    if isinstance(value, list | tuple):
        return [_whole(key, each) for each in value]
    if not isinstance(value, str | Path) or value in PACKAGED_MODELS:
        return value
    is_there = (key in MODEL_SETTINGS and Path(value).is_dir()) or (
        key in FILE_SETTINGS and Path(value).is_file()
    )
    return str(Path(value).resolve()) if is_there else value


def with_defence_options(
    home: Home, name: str, flags: Mapping[str, Any], assignments: list[str]
) -> dict[str, Any]:
    """Flags with the options of defences, as OPTION=VALUE of the one that is chosen or as
    DEFENCE.OPTION=VALUE; those that the task has already stay.

    Raises:
        InputError: no defence is chosen, or an assignment is none.
    """
    if not assignments:
        return dict(flags)
    settings, _ = home.settings(name)
    chosen = flags.get("defence.name") or settings.defence.name
    options = {method: dict(own) for method, own in settings.defence.options.items()}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        method, _, option = key.rpartition(".")
        if not separator or not option:
            raise InputError(f"--defence-option {assignment}: expected OPTION=VALUE")
        if not method and chosen == "none":
            raise InputError(
                f"--defence-option {assignment}: no defence is chosen; add --defence NAME, or "
                "write NAME.OPTION=VALUE"
            )
        options.setdefault(method or chosen, {})[option] = yaml.safe_load(value)
    return {**flags, "defence.options": options}


def _chosen_method(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The selection method that the given settings belong to; a contradiction is an error."""
    methods = {key: METHOD_OF[key] for key in chosen if key in METHOD_OF}
    if "selection.method" in chosen:
        methods["selection.method"] = chosen["selection.method"]
    if len(set(methods.values())) > 1:
        listed = ", ".join(
            f"{key} = {chosen[key]}" + ("" if key == "selection.method" else f" (method {method})")
            for key, method in methods.items()
        )
        raise InputError(f"{listed}: these belong to different methods, give those of one")
    return {"selection.method": next(iter(methods.values()))} if methods else {}
