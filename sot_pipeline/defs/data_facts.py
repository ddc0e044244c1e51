"""What the store knows of a purified set, as its documents tell it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from sot_pipeline import __version__
from sot_pipeline.defs.adapter_facts import TEXT_SETS, shown
from sot_pipeline.defs.store import Store, Stored, file_sha256
from sot_pipeline.errors import InputError

if TYPE_CHECKING:
    from sot_pipeline.publishing.data_facts import (
        CategoryCount,
        DataFacts,
        DataFile,
        PersonalData,
        SourceFile,
    )

_CHECKED = ("rejected_rows", "sample_weights", "calibration", "selected_samples")
_SHOWN_SETTINGS = {"selection": ("keep_fraction", "keep_count"), "transport": ("lambda_push",)}


class Purified:
    """A purification and exactly what it was made from.

    Attributes:
        made_from: Its ancestors that are still in the store, by name.
    """

    def __init__(self, store: Store, task: str, export: Stored) -> None:
        self.task = task
        self.export = export
        found = {
            name: version_of(store, task, name, version)
            for name, version in export.manifest["lineage"].items()
        }
        self.made_from = {name: stored for name, stored in found.items() if stored is not None}
        missing = [f"{role}_texts" for role in TEXT_SETS] + ["selected_samples"]
        missing = [name for name in missing if name not in self.made_from]
        if missing:
            raise InputError(
                f"the purified files of task {task!r} cannot be described: {', '.join(missing)} "
                f"left the store. Run `sot purify --task {task}` again."
            )

    @property
    def texts(self) -> dict[str, Stored]:
        return {role: self.made_from[f"{role}_texts"] for role in TEXT_SETS}

    @property
    def selected(self) -> Stored:
        return self.made_from["selected_samples"]

    @property
    def row_files(self) -> list[str]:
        """Paths of the files of kept rows below the artefact's folder."""
        name = self.export.document["purified"]
        path = self.export.directory / name
        if path.is_dir():
            return sorted(f"{name}/{file.name}" for file in path.iterdir())
        return [name]


def version_of(store: Store, task: str, asset: str, version: str) -> Stored | None:
    """An artefact with a data version: the task's current one, one it had, or any."""
    current = store.current(task, asset)
    own = [*([current] if current else []), *reversed(store.history(task, asset))]
    found = next((stored for stored in own if stored.data_version == version), None)
    return found or store.find_version(asset, version)


def data_facts(
    purified: Purified, folder: Path, personal: "PersonalData", num_text_bytes: int
) -> "DataFacts":
    """Facts of the set as it lies in `folder`, to which its files were written."""
    from sot_pipeline.publishing.data_facts import DataFacts

    texts, selected = purified.texts, purified.selected
    rows = texts["custom"].table()
    kept = selected.table()["sample_id"]
    review = selected.document.get("review", {})
    embeddings = purified.made_from.get("custom_embeddings")
    encoder = embeddings.document["encoder"] if embeddings is not None else "not recorded"
    rejected = purified.made_from.get("rejected_rows")
    return DataFacts(
        task=purified.task,
        version=__version__,
        created=purified.export.manifest["created"][:10],
        data_fingerprint=purified.export.data_version,
        files=[_data_file(folder, name) for name in purified.row_files],
        sources=[source for role, stored in texts.items() for source in _sources(role, stored)],
        num_read=texts["custom"].document["num_read"],
        num_rejected=texts["custom"].document["num_rejected"],
        num_kept=kept.len(),
        num_removed=rows.height - kept.len(),
        num_text_bytes=num_text_bytes,
        personal=personal,
        encoder="the base model" if encoder == "base" else without_folder(encoder),
        method=shown({n: v for n, v in selected.document.items() if n != "review"}),
        settings=_settings(purified),
        rejected_reasons=_rejected_reasons(rejected),
        categories=_categories(rows, kept),
        harmful_categories=_harmful_categories(purified.made_from.get("explanations")),
        decisions=_decisions(selected),
        num_dropped_by_reviewers=review.get("num_dropped_against_cut", 0),
        num_kept_by_reviewers=review.get("num_kept_against_cut", 0),
        max_false_keep_rate=selected.document.get("max_false_keep_rate"),
        findings=_findings(purified),
        libraries=purified.export.manifest["libraries"],
    )


def without_folder(name: str) -> str:
    """A model's name; of a folder of this machine only the last part."""
    return Path(name).name if Path(name).is_absolute() else name


def _data_file(folder: Path, name: str) -> "DataFile":
    from sot_pipeline.publishing.data_facts import Column, DataFile
    from sot_pipeline.texts.columns import Column as Found
    from sot_pipeline.texts.columns import file_columns, reading_options
    from sot_pipeline.texts.row_texts import num_rows
    from sot_pipeline.texts.source import read_source

    def told(column: Found) -> Column:
        members = tuple(told(member) for member in column.members)
        return Column(column.name, column.kind, column.is_list, members, column.in_every_row)

    path = folder / name
    return DataFile(
        name,
        read_source(path, may_be_empty=True).suffix.removeprefix("."),
        num_rows(path),
        path.stat().st_size,
        file_sha256(path),
        tuple(told(column) for column in file_columns(path)),
        reading_options(path),
    )


def _sources(role: str, stored: Stored) -> "Iterable[SourceFile]":
    from sot_pipeline.publishing.data_facts import SourceFile

    for file in stored.document["files"]:
        num_used = file["num_read"] - file["num_rejected"]
        licence = file["licence"]
        yield SourceFile(
            role,
            file["name"],
            file["location"],
            file["sha256"],
            file["bytes"],
            file["num_read"],
            file["num_rejected"],
            licence if isinstance(licence, Mapping) else {licence: num_used},
            file["licence_from"],
            file["revision"],
            file["format"] or "",
            file["file_type"],
        )


def _settings(purified: Purified) -> dict[str, str]:
    values: dict[str, Any] = {}
    made_by = {
        "selection": purified.selected,
        "transport": purified.made_from.get("sample_weights"),
    }
    for block, names in _SHOWN_SETTINGS.items():
        stored = made_by[block]
        settings = stored.manifest["settings"].get(block, {}) if stored is not None else {}
        values |= {name: settings.get(name) for name in names}
    weights = made_by["transport"]
    if weights is not None:
        values["epsilon"] = weights.document.get("epsilon")
    if purified.selected.document["method"] != "top_k":
        values = {n: v for n, v in values.items() if n not in _SHOWN_SETTINGS["selection"]}
    return shown(values)


def _rejected_reasons(rejected: Stored | None) -> dict[str, int]:
    if rejected is None:
        return {}
    reasons = rejected.table().filter(text_set="custom")["reason"].to_list()
    return dict(Counter(reasons).most_common())


def _categories(rows: pl.DataFrame, kept: pl.Series) -> "list[CategoryCount]":
    from sot_pipeline.publishing.data_facts import CategoryCount

    if "category" not in rows.columns or rows["category"].null_count() == rows.height:
        return []
    counts = (
        rows.select(
            pl.col("category").fill_null("none stated"),
            removed=~pl.col("sample_id").is_in(kept.implode()),
        )
        .group_by("category")
        .agg(pl.len().alias("num_read"), pl.col("removed").sum())
        .sort(["removed", "category"], descending=[True, False])
    )
    return [CategoryCount(*row) for row in counts.iter_rows()]


def _harmful_categories(explanations: Stored | None) -> dict[str, int]:
    """Removed rows by the category of the harmful rows that they resemble, where it is known."""
    table = explanations.table() if explanations is not None else pl.DataFrame()
    if "harmful_category" not in table.columns:
        return {}
    found = table.filter(~pl.col("kept"))["harmful_category"].drop_nulls().to_list()
    return dict(Counter(found).most_common())


def _decisions(selected: Stored) -> dict[str, int]:
    """How often reviewers overruled the cut, if their decisions were part of it."""
    review = selected.document.get("review", {})
    named = {
        "texts decided about": "num_honoured",
        "rows kept against the cut": "num_kept_against_cut",
        "rows removed against the cut": "num_dropped_against_cut",
    }
    return {name: review[key] for name, key in named.items() if review.get(key)}


def _findings(purified: Purified) -> list[str]:
    made = [purified.made_from[name] for name in _CHECKED if name in purified.made_from]
    return [check.description for stored in made for check in stored.checks() if not check.passed]
