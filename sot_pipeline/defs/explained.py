"""A task's explanations as a person asks for them: the row by any of its names, its evidence with
the places of the reference rows, and what compared methods made of it."""

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

import polars as pl

from sot_pipeline.defs.cached_asset import CachedAsset
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.scoring import purified_assets
from sot_pipeline.defs.state import AssetState, asset_states
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline.errors import InputError
from sot_pipeline.reviews.decisions import text_id

NEEDED = (
    "custom_texts", "safe_texts", "harmful_texts", "rejected_rows", "sample_weights",
    "selected_samples", "explanations",
)  # fmt: skip
_PLACE = re.compile(r"(?:(?P<file>.+):)?(?P<line>\d[\d,]*)")
SHOWN_IDS = 5
_LONGER_THAN_A_LINE = 6  # digits: a short number is a line, not the beginning of an id


class ExplainedTask:
    """The explanations of a purified task.

    Raises:
        InputError: the task has not been purified, or by a version that explained less.
    """

    def __init__(self, home: Home, task: str) -> None:
        self.task = task
        self._assets = purified_assets(home, task, NEEDED)
        self._rows = self._assets["explanations"].table()
        if "explanation" not in self._rows.columns:
            raise InputError(
                f"the explanations of {task!r} were made by an earlier version of this project: "
                f"run `sot purify --task {task}` again"
            )
        texts = self._assets["custom_texts"]
        self._custom = _places(texts).join(
            texts.table().select("sample_id", "source_id"), on="sample_id", maintain_order="left"
        )
        self._said = _said(Store(home.store), task)
        self._compared = _compared(Store(home.store), task, self._assets["selected_samples"])
        self._references = {
            name: _places(self._assets[f"{name}_texts"]) for name in ("safe", "harmful")
        }

    @property
    def num_rows(self) -> int:
        return self._rows.height

    @property
    def num_kept_by_cut(self) -> int:
        """Rows that the cut itself keeps, whatever reviewers decided."""
        selected = self._assets["selected_samples"]
        review = selected.document.get("review")  # selections of earlier code have none
        return review["num_kept_by_cut"] if review else selected.manifest["rows"]

    def find(self, wanted: str) -> str:
        """The sample id of the row that a person means.

        Args:
            wanted: A sample id or the start of one, a source id, a line, or file:line.

        Raises:
            InputError: no row is called so, or several are; it names the nearest.
        """
        for name in ("sample_id", "source_id"):
            found = self._custom.filter(pl.col(name) == wanted)["sample_id"].to_list()
            if found:
                return self._only(found, wanted)
        place = _PLACE.fullmatch(wanted)
        if place is not None:
            found = self._at(place["file"], int(place["line"].replace(",", "")))
            if found:
                return self._only(found, wanted)
        if wanted and (place is None or len(wanted) >= _LONGER_THAN_A_LINE):
            started = self._custom.filter(pl.col("sample_id").str.starts_with(wanted))
            if started.height:
                return self._only(started["sample_id"].to_list(), wanted)
        raise InputError(self._unknown(wanted, place))

    def worst(self, count: int) -> list[str]:
        """Ids of the rows at the lowest places, the lowest first."""
        return self._rows.sort("rank", descending=True)["sample_id"].head(count).to_list()

    def borderline(self, count: int) -> list[str]:
        """Ids of the rows nearest to the cut, the nearest first."""
        distance = (pl.col("rank") - (pl.lit(self.num_kept_by_cut) + 0.5)).abs()
        return self._rows.sort(distance, "rank")["sample_id"].head(count).to_list()

    def evidence(self, sample_id: str) -> dict[str, Any]:
        """A line of `explanations` with the row's place, those of the reference rows that it
        names, who decided about it (`reviewer`, `note`), the cut's settings, and the compared
        methods that would have put it on the other side."""
        row = self._rows.row(by_predicate=pl.col("sample_id") == sample_id, named=True)
        own = self._custom.row(by_predicate=pl.col("sample_id") == sample_id, named=True)
        kept = row["kept"]
        compared = self._compared.filter(pl.col("sample_id") == sample_id)
        return {
            "task": self.task,
            "file": own["file"],
            "line": own["line"],
            "source_id": own["source_id"],
            **row,
            **self._decided(row),
            "lambda_push": self._assets["sample_weights"].document["lambda_push"],
            **self._cut(),
            **{name: self._named(name, row) for name in ("harmful", "safe")},
            "compared_methods": compared["method"].to_list(),
            "compared_methods_that_disagree": compared.filter(pl.col("kept") != kept)[
                "method"
            ].to_list(),
        }

    def messages(self, text_set: str, sample_id: str) -> list[dict[str, Any]]:
        """The conversation of a row of `custom`, `safe` or `harmful`."""
        table = self._assets[f"{text_set}_texts"].table()
        row = table.row(by_predicate=pl.col("sample_id") == sample_id, named=True)
        return json.loads(row["messages"])

    def _named(self, name: str, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The reference rows that take most of a row's mass, and where they stand."""
        places = self._references[name].filter(
            pl.col("sample_id").is_in(row[f"{name}_ids"], nulls_equal=False)
        )
        by_id = {place["sample_id"]: place for place in places.iter_rows(named=True)}
        columns = (row[f"{name}_{part}"] for part in ("ids", "shares", "similarities"))
        return [
            {**by_id[sample_id], "share": share, "similarity": similarity}
            for sample_id, share, similarity in zip(*columns, strict=True)
        ]

    def _decided(self, row: dict[str, Any]) -> dict[str, str | None]:
        """Who decided about the row and what they said, where the row's decision is theirs."""
        said = self._said.get(text_id(row["sample_id"]))
        if said is None or said["decision"] != row["decision"]:
            return {"reviewer": None, "note": None}
        return {name: said[name] or None for name in ("reviewer", "note")}

    def _cut(self) -> dict[str, float | None]:
        selected = self._assets["selected_samples"]
        asked = selected.manifest["settings"].get("selection", {}).get("keep_fraction")
        calibrated = selected.document["method"] == "calibrated"
        rate = selected.document["max_false_keep_rate"] if calibrated else None
        share = self.num_kept_by_cut / max(1, self.num_rows)
        return {
            "num_kept_by_cut": self.num_kept_by_cut,
            "keep_fraction": share if calibrated or asked is None else asked,
            "max_false_keep_rate": rate,
            "num_held_out_harmful": selected.document.get("num_held_out_harmful"),
        }

    def _at(self, file: str | None, line: int) -> list[str]:
        rows = self._custom.filter(pl.col("line") == line)
        if file is not None:
            # as the store calls it, or the end of a path
            name = file.rsplit("/", 1)[-1]
            rows = rows.filter(pl.col("file").is_in([file, name]))
        return rows["sample_id"].to_list()

    def _only(self, found: list[str], wanted: str) -> str:
        if len(found) == 1:
            return found[0]
        rows = self._custom.filter(pl.col("sample_id").is_in(found)).head(SHOWN_IDS)
        listed = ", ".join(f"{i} ({f}:{n})" for i, f, n in rows.select("sample_id", "file", "line")
                           .iter_rows())  # fmt: skip
        raise InputError(
            f"{len(found):,} rows of {self.task!r} are called {wanted!r}: {listed}"
            f"{' ...' if len(found) > SHOWN_IDS else ''}; name one by its whole sample id"
        )

    def _unknown(self, wanted: str, place: re.Match[str] | None) -> str:
        start = f"no row of {self.task!r} is called {wanted!r}; "
        if place is not None:
            line = int(place["line"].replace(",", ""))
            refused = self._assets["rejected_rows"].table()
            refused = refused.filter((pl.col("text_set") == "custom") & (pl.col("line") == line))
            if refused.height:
                return start + f"line {line} was rejected when it was read: {refused['reason'][0]}"
            near = self._custom.sort((pl.col("line") - line).abs()).head(3)
            listed = ", ".join(f"{f}:{n}" for f, n in near.select("file", "line").iter_rows())
            return start + f"the nearest lines that were read are {listed}"
        known = (
            self._custom["sample_id"].to_list() + self._custom["source_id"].drop_nulls().to_list()
        )
        close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
        nearest = f"the nearest ids are {', '.join(close)}" if close else "no id is near it"
        return (
            start + f"{nearest}. Give a sample id (of explanations, of the ledger or of the "
            "report), the row's own id, or FILE:LINE"
        )


def why_outdated(assets: Iterable[CachedAsset], home: Home, task: str) -> list[str]:
    """Why the task's explanations are no longer what a purification would make, such as "the
    source of custom_texts changed"; empty where they are."""
    by_name = {asset.name: asset for asset in assets}
    needed: set[str] = set()
    waiting = ["explanations"]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in needed:
            needed.add(name)
            waiting += by_name[name].inputs
    found = asset_states([by_name[name] for name in by_name if name in needed], home,
                         Store(home.store), task)  # fmt: skip
    own = next(state for state in found if state.asset == "explanations")
    if own.state in ("current", "missing"):
        return []
    causes = [state for state in found if state.because or state.asset in own.after] or [own]
    return list(dict.fromkeys(reason for state in causes for reason in _reasons(state)))


def _reasons(state: AssetState) -> list[str]:
    if not state.because:
        return [f"{state.asset} is {state.state}"]
    return [
        f"the {reason[4:-8]} of {state.asset} changed"
        if reason in ("its code changed", "its source changed")
        else reason
        for reason in state.because
    ]


def _said(store: Store, task: str) -> dict[str, dict[str, Any]]:
    """The decision that the task was purified with, by text; earlier code has none."""
    stored = store.current(task, "review_decisions")
    rows = [] if stored is None else stored.table().iter_rows(named=True)
    return {text_id(row["sample_id"]): row for row in rows}


def _places(texts: Stored) -> pl.DataFrame:
    """`sample_id, file, line, category`; the table leaves the name of an only file out."""
    return texts.table().select(
        "sample_id",
        pl.col("file").fill_null(texts.document["files"][0]["name"]),
        "line",
        "category",
    )


def _compared(store: Store, task: str, selected: Stored) -> pl.DataFrame:
    """`method, sample_id, kept` of the methods that were compared on this very selection; empty
    where none was."""
    stored = store.current(task, "compared_selections")
    if stored is None or stored.manifest["inputs"].get("selected_samples") != selected.fingerprint:
        schema = {"method": pl.String, "sample_id": pl.String, "kept": pl.Boolean}
        return pl.DataFrame(schema=schema)
    own = ("sot", "sot_cut", "sot_reweight", "sft")  # the task's own, or no choice of rows
    return stored.table().filter(~pl.col("method").is_in(own)).select("method", "sample_id", "kept")
