"""A preset's text sets in a home: where they are drawn to, and the task that reads them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sot_pipeline.defs.dry_run import task_workload
from sot_pipeline.defs.home import EvaluationFiles, Home, TaskFile
from sot_pipeline.defs.paper import (
    Preset,
    SourceSpec,
    assumed_workload,
    make_draw,
    resolve_preset,
)
from sot_pipeline.defs.settings import Layer, Settings
from sot_pipeline.defs.sources import fetching_progress
from sot_pipeline.defs.store import fingerprint_of
from sot_pipeline.defs.workload import Workload
from sot_pipeline.errors import InputError
from sot_pipeline.texts.contaminate import MANIFEST, Draw, SourceFiles, Sources, contaminate
from sot_pipeline.texts.fetch import input_files

_HUB = re.compile(r"hf://datasets/(?P<name>[^@]+)@(?P<commit>[0-9a-f]{40})/(?P<path>.+)")


class PreparedPreset(NamedTuple):
    folder: Path
    task: Path
    manifest: dict[str, Any]


def prepare_preset(
    home: Home,
    preset: Preset,
    changed_draw: Mapping[str, Any],
    changed_settings: Mapping[str, Mapping[str, Any]],
    folder: Path | None,
) -> PreparedPreset:
    """Draw a preset's sets and write its task file.

    Args:
        folder: Where each data set lies as OWNER/NAME/FILE or NAME/FILE; None: the hub, at the
            preset's commits.

    Raises:
        InputError: a setting is wrong (nothing is written then), a file is missing or not laid
            out as its data set, or there are too few rows.
    """
    draw = make_draw(preset, changed_draw)
    resolve_preset(preset, after=[("command line", changed_settings)])
    sources = Sources(
        **{role: _files(home, source, folder) for role, source in preset.sources.items()}
    )
    out = sets_folder(home, preset, draw)
    prepared = contaminate(sources, draw, out)
    written = prepared.files
    settings = preset.task_settings()
    for block, fields in changed_settings.items():
        settings.setdefault(block, {}).update(fields)
    task = TaskFile(
        custom=(str(written["custom"]),),
        safe=(str(written["safe"]),),
        harmful=(str(written["harmful"]),),
        custom_clean=written["custom_clean"],
        labels=written["custom"],  # its lines say which row is which; no method reads that
        evaluation=EvaluationFiles(
            harmful=written.get("eval_harmful"), task=written.get("eval_task")
        ),
        settings=settings,
    )
    return PreparedPreset(out, home.write_task(preset.name, task), prepared.manifest)


def sets_folder(home: Home, preset: Preset, draw: Draw) -> Path:
    """Presets that differ in the backbone alone share their sets; another draw lies elsewhere, so
    that no task's files change under it."""
    name = f"{preset.custom_set}-seed{draw.seed}-{fingerprint_of(draw._asdict())[:8]}"
    return home.root / "paper" / name


def preset_workload(home: Home, preset: Preset, draw: Draw, settings: Settings) -> Workload:
    """Rows and tokens: counted where the preset's task was prepared by this draw, else assumed."""
    if draw == prepared_draw(home, preset):
        return task_workload(home.read_task(preset.name), settings)
    return assumed_workload(preset, draw)


def prepared_draw(home: Home, preset: Preset) -> Draw | None:
    """What the preset's task was drawn by, if it is prepared."""
    if not home.task_path(preset.name).exists():
        return None
    manifest = Path(home.read_task(preset.name).custom[0]).with_name(MANIFEST)
    try:
        return Draw(**json.loads(manifest.read_text())["draw"])
    except (OSError, ValueError, KeyError, TypeError):  # a task of the same name by hand
        return None


def task_layer(home: Home, preset: Preset) -> Layer:
    """What the preset's task sets otherwise than the preset."""
    path = home.task_path(preset.name)
    if not path.exists():
        return str(path), {}
    own = preset.task_settings()
    changed: dict[str, dict[str, Any]] = {}
    for block, fields in home.read_task(preset.name).settings.items():
        for field, value in fields.items():
            if field not in own.get(block, {}) or own[block][field] != value:
                changed.setdefault(block, {})[field] = value
    return str(path), changed


def _files(home: Home, source: SourceSpec, folder: Path | None) -> SourceFiles:
    place = source.files if folder is None else _local(source, folder)
    files = input_files(
        [place], home.fetched, licences={place: source.licence}, progress=fetching_progress
    )
    return SourceFiles(source.name, source.layout, files, source.licence)


def _local(source: SourceSpec, folder: Path) -> str:
    parts = _HUB.fullmatch(source.files)
    assert parts is not None, source.files
    name, path = parts["name"], parts["path"]
    candidates = [folder / name / path, folder / name.partition("/")[2] / path]
    for candidate in candidates:
        if any(candidate.parent.glob(candidate.name)):
            return str(candidate.absolute())
    raise InputError(
        f"{candidates[0]}: no such file. Fetch it with `hf download --repo-type dataset {name} "
        f'--revision {parts["commit"]} --include "{path}" --local-dir {folder / name}`, or take '
        "--from hub."
    )
