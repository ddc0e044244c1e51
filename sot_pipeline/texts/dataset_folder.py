"""Which files of a dataset's folder hold its rows, and under which licence.

Three kinds: what `datasets.save_to_disk` wrote, a repository whose card (README.md) names its
data files, and any other folder with data files in it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from fsspec.utils import glob_translate

from sot_pipeline.errors import InputError

_DATA = re.compile(r"\.(jsonl|ndjson|json|csv|tsv|parquet|pq|arrow)(\.(gz|zst|zstd))?$", re.I)
_ABOUT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)


class DatasetFolder(NamedTuple):
    """The chosen files, in order, by their names below the folder; the card's licence."""

    files: list[str]
    licence: str | None


def choose_files(names: Sequence[str], read: Callable[[str], bytes], where: str) -> DatasetFolder:
    """The files that hold the rows of a dataset.

    Of several splits the one named `train` is taken. A file is chosen from `names` alone, so
    nothing that a card says leads outside the folder.

    Args:
        names: every file below the folder, with / between folders.
        read: the content of one of them.
        where: the folder, for messages.

    Raises:
        InputError: no data files, a card that cannot be read or names none of the files, or
            several configurations or splits with none to prefer.
    """
    visible = sorted(n for n in names if not any(part.startswith(".") for part in n.split("/")))
    if "dataset_dict.json" in visible:
        splits = _json(read, "dataset_dict.json", where).get("splits")
        if not isinstance(splits, list) or not all(isinstance(s, str) for s in splits):
            raise InputError(f"{where}/dataset_dict.json names no splits; save the dataset again.")
        split = _one_of({name: name for name in splits}, "train", "splits", where)
        return _saved_to_disk(visible, read, where, f"{split}/")
    if "state.json" in visible:
        return _saved_to_disk(visible, read, where, "")
    card = read_card(read("README.md"), where) if "README.md" in visible else {}
    patterns = _card_patterns(card, where)
    if patterns is None:
        chosen = [n for n in visible if _DATA.search(n) and n.split("/")[-1] not in _ABOUT_DATA]
    else:
        chosen = [name for pattern in patterns for name in _matching(pattern, visible, where)]
    if not chosen:
        found = ", ".join(visible[:5]) + (" …" if len(visible) > 5 else "")
        raise InputError(
            f"{where} holds no data file (found: {found or 'nothing'}); expected files named "
            ".jsonl, .json, .csv, .tsv, .parquet or .arrow."
        )
    return DatasetFolder(list(dict.fromkeys(chosen)), licence_of(card))


def read_card(content: bytes, where: str) -> dict[str, Any]:
    """The YAML block at the head of a dataset card; empty if there is none."""
    block = _FRONT_MATTER.match(content.decode("utf-8", "replace"))
    if block is None:
        return {}
    try:
        card = yaml.safe_load(block[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 2}" if mark else ""
        raise InputError(
            f"{where}/README.md{line}: the block between the lines --- is not YAML. Mend it, or "
            "name the data files by a glob instead of the folder."
        ) from error
    if card is not None and not isinstance(card, dict):
        raise InputError(
            f"{where}/README.md: the block between the lines --- is a {type(card).__name__}; "
            "expected names with values, such as `license: mit`."
        )
    return card or {}


def licence_of(card: Mapping[str, Any]) -> str | None:
    """The licence that a card or a dataset_info.json states."""
    stated = card.get("license") or card.get("licence")
    names = stated if isinstance(stated, list) else [stated]
    texts = [str(name).strip() for name in names if isinstance(name, str) and name.strip()]
    if texts == ["other"] and isinstance(card.get("license_name"), str):
        texts = [f"other ({card['license_name']})"]
    return ", ".join(texts)[:200] or None


def _card_patterns(card: Mapping[str, Any], where: str) -> list[str] | None:
    """The glob patterns of the default configuration, or None if the card names no files."""
    configs = card.get("configs")
    if not configs:
        return None
    if not isinstance(configs, list) or not all(isinstance(c, dict) for c in configs):
        raise InputError(f"{where}/README.md: `configs` must be a list of configurations.")
    preferred = next((c for c in configs if c.get("default") is True), {}).get("config_name")
    named = {str(c.get("config_name", "default")): c for c in configs}
    config = _one_of(named, str(preferred or "default"), "configurations", where)
    given = config.get("data_files")
    if given is None:
        folder = config.get("data_dir")
        return [f"{folder.strip('/')}/**"] if isinstance(folder, str) else None
    if isinstance(given, list) and all(isinstance(entry, dict) for entry in given):
        given = {str(entry.get("split", "train")): entry.get("path") for entry in given}
    if isinstance(given, dict):
        given = _one_of(given, "train", "splits", where)
    patterns = [given] if isinstance(given, str) else given
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise InputError(f"{where}/README.md: `data_files` must name files, such as data/*.jsonl.")
    return patterns


def _one_of(choices: Mapping[str, Any], preferred: str, what: str, where: str) -> Any:
    if len(choices) == 1:
        return next(iter(choices.values()))
    if preferred in choices:
        return choices[preferred]
    raise InputError(
        f"{where} has several {what} ({', '.join(choices)}) and none named {preferred}. Name the "
        "files of one by a glob instead of the folder."
    )


def _matching(pattern: str, names: Sequence[str], where: str) -> list[str]:
    """Names that a card's pattern means; data files only where it means a folder."""
    pattern = pattern.removeprefix("./")
    if pattern.startswith("/") or "://" in pattern or ".." in pattern.split("/"):
        raise InputError(
            f"{where}/README.md: data files {pattern!r} lie outside the folder; expected names "
            "below it. Name the files to read instead of the folder."
        )
    try:
        expression = re.compile(glob_translate(pattern))
    except (ValueError, re.error) as error:
        raise InputError(f"{where}/README.md: {pattern!r} is no glob ({error}).") from error
    found = [name for name in names if expression.match(name)]
    if pattern.endswith("**"):
        found = [name for name in found if _DATA.search(name)]
    if not found:
        raise InputError(
            f"{where}/README.md names data files {pattern!r}, and there are none. Download the "
            "dataset again, or name the files to read."
        )
    return found


def _saved_to_disk(
    names: Sequence[str], read: Callable[[str], bytes], where: str, prefix: str
) -> DatasetFolder:
    """The Arrow files of a dataset that `datasets.save_to_disk` wrote."""
    if f"{prefix}state.json" not in names:
        raise InputError(f"{where}/{prefix}state.json is missing; save the dataset again.")
    state = _json(read, f"{prefix}state.json", where)
    if state.get("_indices_data_files"):
        raise InputError(
            f"{where}/{prefix}state.json: the rows are chosen by an index file, which is not read. "
            "Save the dataset again after `dataset.flatten_indices()`."
        )
    entries = state.get("_data_files")
    files = [
        f"{prefix}{entry['filename']}"
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("filename"), str)
    ]
    missing = [name for name in files if name not in names]
    if missing or not files:
        found = f"names {missing[0]!r}, which is not there" if missing else "names no data files"
        raise InputError(f"{where}/{prefix}state.json {found}; save or download the dataset again.")
    about = f"{prefix}dataset_info.json"
    return DatasetFolder(files, licence_of(_json(read, about, where)) if about in names else None)


def _json(read: Callable[[str], bytes], name: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(read(name))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}/{name} is not JSON; save the dataset again.") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}/{name} holds no JSON object; save the dataset again.")
    return value
