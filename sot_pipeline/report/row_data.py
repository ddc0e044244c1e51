"""What the page's script knows of every row: the columns of the ledger, and of the maps.

Ids, numbers and categories come for every row (up to `MAX_ROWS`); reasons, full explanations and,
where asked for, texts for as many as the page has room for, the most interesting rows first.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.report import packing
from sot_pipeline.report.data import ReportData
from sot_pipeline.report.embedding_map import EmbeddingMap
from sot_pipeline.report.numbers import Numbers
from sot_pipeline.report.row_order import by_interest, near_the_cut
from sot_pipeline.visible import excerpt, visible

MAX_ROWS = 100_000
MAX_REFERENCES = 10_000  # of each reference, in the maps
ID_LENGTH, EXPLANATION_LENGTH, TEXT_LENGTH = 80, 1_500, 600
_CATEGORIES = ("category", "harmful_category")
_RESERVE = 2_000  # characters of JSON around the columns


class RowData(NamedTuple):
    """`block`: JSON in which no text of a row stands uncompressed; `left_out`: sentences for the
    reader, one for each thing that did not fit."""

    block: str
    left_out: list[str]


def row_data(
    data: ReportData,
    numbers: Numbers,
    max_size: int,
    *,
    shown_text: Callable[[str], str] = lambda text: text,
) -> RowData:
    """The data block of a page.

    Args:
        max_size: Characters that it may take.
        shown_text: What becomes of the text of a row before it is shown.
    """
    order = by_interest(data, numbers)
    chosen, packed = _fitting(data, numbers, order[:MAX_ROWS], max_size)
    left_out = []
    if len(chosen) < len(order):
        left_out.append(
            f"{len(order) - len(chosen):,} of {len(order):,} rows, kept ones with high weights, are "
            "not in this page; ledger.jsonl of the export lists them all."
        )
    room = max_size - packing.size_of(packed) - _RESERVE
    extras, sentences = _extras(data, numbers, chosen, room, shown_text)
    block = json.dumps(packed | extras, separators=(",", ":"), allow_nan=False)
    return RowData(block, left_out + sentences)


def _fitting(
    data: ReportData, numbers: Numbers, order: np.ndarray, max_size: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """As many rows as fit, the first of the order; each row's place is that in the ledger."""
    while True:
        chosen = np.sort(order)
        packed = _columns(data, numbers, chosen) | _maps(data, chosen)
        size = packing.size_of(packed) + _RESERVE
        if size <= max_size or len(order) <= 1:
            return chosen, packed
        order = order[: max(1, int(0.9 * len(order) * max_size / size))]


def _columns(data: ReportData, numbers: Numbers, chosen: np.ndarray) -> dict[str, Any]:
    ledger = data.ledger[chosen.tolist()]
    borderline = np.isin(chosen, np.concatenate(near_the_cut(numbers, data.num_borderline)))
    weight = np.maximum(numbers.log10_relative[chosen], -300.0)
    columns: dict[str, Any] = {
        "id": packing.texts(_short(ledger["sample_id"])),
        "line": packing.whole_numbers(ledger["line"].fill_null(0).to_numpy()),
        "rank": packing.whole_numbers(ledger["rank"].to_numpy()),
        "kept": packing.whole_numbers(numbers.kept[chosen]),
        "weight": packing.numbers(weight.astype(np.float32)),
        "borderline": packing.whole_numbers(borderline),
    }
    if _is_known(ledger, "source_id"):
        columns["source"] = packing.texts(_short(ledger["source_id"]))
    for name in ("file", *_CATEGORIES):
        if _is_known(ledger, name):
            columns[name] = packing.names(_short(ledger[name]))
    for reference in ("safe", "harmful"):
        if _is_known(ledger, f"nearest_{reference}"):
            columns[f"nearest_{reference}"] = packing.names(_short(ledger[f"nearest_{reference}"]))
        for name in (f"{reference}_similarity", "harmful_p_value"):
            if _is_known(ledger, name):
                columns[name] = packing.hundredths_of_a_percent(ledger[name].to_numpy())
    if _is_known(ledger, "disagreeing_methods"):
        listed = ledger["disagreeing_methods"].list.join(", ")
        columns["disagreeing"] = packing.names([name or None for name in _short(listed)])
    if data.coverage is not None:
        columns["far"] = packing.whole_numbers(data.coverage.uncovered[chosen])
    if data.decisions is not None and data.decisions.height:
        columns["decision"] = packing.names(_decisions(data.decisions, ledger))
    elif _is_known(ledger, "decision"):
        columns["decision"] = packing.names(_short(ledger["decision"]))
    return {
        "rows": len(chosen),
        "all": numbers.num_rows,
        "cut": numbers.cut,
        "columns": columns,
    }


def _is_known(ledger: pl.DataFrame, name: str) -> bool:
    return name in ledger.columns and ledger[name].null_count() < ledger.height


def _short(values: pl.Series) -> list[str | None]:
    return _shown(values.to_list(), ID_LENGTH)


def _shown(values: Sequence[Any], length: int) -> list[str | None]:
    return [None if value is None else visible(excerpt(str(value), length)) for value in values]


def _decisions(decisions: pl.DataFrame, ledger: pl.DataFrame) -> list[str | None]:
    told = {
        row["sample_id"]: ", ".join(
            str(row[name]) for name in ("decision", "reviewer", "note", "decided") if row[name]
        )
        for row in decisions.iter_rows(named=True)
    }
    return _shown([told.get(name) for name in ledger["sample_id"]], 4 * ID_LENGTH)


def _maps(data: ReportData, chosen: np.ndarray) -> dict[str, Any]:
    maps = {"neighbours": data.neighbours, "harm": data.points}
    known = {name: points for name, points in maps.items() if points is not None}
    if not known:
        return {}
    picked = {
        role: _even(len(getattr(next(iter(known.values())), role))) for role in ("safe", "harmful")
    }
    found: dict[str, Any] = {name: _map(points, chosen, picked) for name, points in known.items()}
    references: dict[str, Any] = {role: {"count": len(rows)} for role, rows in picked.items()}
    if data.references is not None:
        for role, rows in picked.items():
            table = data.references.filter(pl.col("text_set") == role)[rows.tolist()]
            references[role]["id"] = packing.texts(_short(table["sample_id"]))
            if _is_known(table, "line"):
                references[role]["line"] = packing.whole_numbers(
                    table["line"].fill_null(0).to_numpy()
                )
            if _is_known(table, "category"):
                references[role]["category"] = packing.names(_short(table["category"]))
    return {"maps": found, "references": references}


def _even(size: int) -> np.ndarray:
    return np.linspace(0, size - 1, min(size, MAX_REFERENCES)).round().astype(np.int64)


def _map(points: EmbeddingMap, chosen: np.ndarray, picked: dict[str, np.ndarray]) -> dict[str, Any]:
    """Both coordinates in [0, 65535] over the extent of all three sets, y upwards."""
    every = np.concatenate(points)
    low, high = every.min(axis=0), every.max(axis=0)
    unit = 65_535 / np.maximum(high - low, 1e-12)

    def packed(xy: np.ndarray) -> packing.Packed:
        return packing.numbers(np.round((xy - low) * unit).astype(np.uint16).T.ravel())

    return {
        "custom": packed(points.custom[chosen]),
        **{role: packed(getattr(points, role)[rows]) for role, rows in picked.items()},
        "zero": float(np.clip(-low[0] / max(high[0] - low[0], 1e-12), 0, 1)),
    }


def _extras(
    data: ReportData,
    numbers: Numbers,
    chosen: np.ndarray,
    room: int,
    shown_text: Callable[[str], str],
) -> tuple[dict[str, Any], list[str]]:
    """Explanations, reasons of rows without one, and texts: each gets a share of what is left."""
    ledger = data.ledger[chosen.tolist()]
    order = _order_within(data, numbers, chosen)
    kinds = [kind for kind in _kinds(data.show_text, shown_text) if _is_known(ledger, kind.name)]
    found: dict[str, Any] = {}
    left_out = []
    explained = order[:0]
    for done, kind in enumerate(kinds):
        places = order[~ledger[kind.name].is_null().to_numpy()[order]]
        if kind.name == "reason":
            places = places[~np.isin(places, explained)]
        values = ledger[kind.name].gather(places.tolist()).to_list()
        texts = [visible(excerpt(str(value), kind.length, kind.change)) for value in values]
        packed = packing.as_many_texts(texts, places, room // (len(kinds) - done))
        count = 0 if packed is None else packed["count"]
        if kind.name == "explanation":
            explained = places[:count]
        if packed is not None:
            found[kind.name] = packed
            room -= packing.size_of(packed)
        if count < len(texts):
            left_out.append(
                f"The {kind.label} is here for {count:,} of {len(texts):,} rows{kind.else_}: rows "
                "at the cut come first, then removed ones, then kept ones from the lowest weight."
            )
    return {"texts": found}, left_out


class _Kind(NamedTuple):
    name: str
    label: str
    else_: str
    length: int
    change: Callable[[str], str] | None


def _kinds(show_text: bool, shown_text: Callable[[str], str]) -> list[_Kind]:
    rebuilt = " without an explanation (of the others the numbers alone)"
    kinds = [
        _Kind("explanation", "full explanation", "", EXPLANATION_LENGTH, None),
        _Kind("reason", "reason in words", rebuilt, EXPLANATION_LENGTH, None),
    ]
    if show_text:
        kinds += [
            _Kind(name, f"beginning of the {name}", "", TEXT_LENGTH, shown_text)
            for name in ("prompt", "response")
        ]
    return kinds


def _order_within(data: ReportData, numbers: Numbers, chosen: np.ndarray) -> np.ndarray:
    """Places within `chosen`, the most interesting first."""
    order = by_interest(data, numbers)
    place = np.full(len(data.ledger), -1, dtype=np.int64)
    place[chosen] = np.arange(len(chosen))
    within = place[order]
    return within[within >= 0]
