"""Croissant 1.1 metadata with the responsible-AI fields: `croissant.json`.

Layout: docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and croissant-rai-spec.html. Every
file of rows is a `FileObject` with its sha256 and a `RecordSet` of its own, whose fields are those
that the file has. A field is left out, and named in the record set's description, where `mlcroissant`
1.1.1 could not read it: lists in lists, objects in objects, mixed types, names that are no JSON path.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from sot_pipeline.publishing.data_facts import Column, DataFacts, DataFile
from sot_pipeline.publishing.dataset_card import CITATION
from sot_pipeline.publishing.licences import licence_address
from sot_pipeline.publishing.markdown import visible
from sot_pipeline.publishing.removal import why_removed
from sot_pipeline.publishing.responsible_ai import responsible_ai

CROISSANT = "croissant.json"
CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_FORMATS = {
    "jsonl": "application/jsonlines",
    "json": "application/json",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "parquet": "application/x-parquet",
}
_TYPES = {
    "text": "sc:Text",
    "integer": "sc:Integer",
    "number": "sc:Float",
    "boolean": "sc:Boolean",
}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def croissant(facts: DataFacts) -> str:
    """The metadata as JSON-LD text."""
    metadata = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": visible(facts.title),
        "description": _description(facts),
        "conformsTo": CONFORMS_TO,
        "license": _licences(facts),
        "citeAs": CITATION,
        "datePublished": facts.created,
        "version": f"1.0.0+{facts.data_fingerprint}",
        "keywords": ["safety", "data selection", "fine-tuning", "sot_pipeline"],
        "isLiveDataset": False,
        **responsible_ai(facts),
        "distribution": [_file_object(index, file) for index, file in enumerate(facts.files)],
        "recordSet": [
            record_set
            for index, file in enumerate(facts.files)
            if (record_set := _record_set(index, file, facts)) is not None
        ],
    }
    return json.dumps(metadata, indent=1, ensure_ascii=True) + "\n"


def _description(facts: DataFacts) -> str:
    return (
        f"{facts.num_kept:,} of {facts.num_read:,} rows of a fine-tuning set. {facts.num_removed:,} "
        f"were removed, {facts.num_rejected:,} could not be read. {why_removed(facts)} Every row of the input stands in "
        "ledger.parquet with its reason."
    )


def _licences(facts: DataFacts) -> str | list[str]:
    known = [visible(licence_address(licence)) for licence in facts.known_licences]
    if not known:
        return "No licence of the rows is stated by their sources."
    if len(known) < len(facts.licences):
        known.append("The licence of some rows is not stated by their source.")
    return known[0] if len(known) == 1 else known


def _file_object(index: int, file: DataFile) -> dict[str, Any]:
    plain, _, compression = file.file_type.partition(".")
    formats = [_FORMATS.get(plain, "application/octet-stream")]
    formats += {"gz": ["application/gzip"], "zst": ["application/zstd"]}.get(compression, [])
    return {
        "@type": "cr:FileObject",
        "@id": f"file-{index}",
        "name": visible(file.name),
        "description": f"{file.num_rows:,} kept rows",
        "contentUrl": file.name,
        "contentSize": f"{file.num_bytes} B",
        "encodingFormat": formats[0] if len(formats) == 1 else formats,
        "sha256": file.sha256,
    }


def _record_set(index: int, file: DataFile, facts: DataFacts) -> dict[str, Any] | None:
    described = list(_fields(index, file))
    if not described:
        return None
    names = {field["name"] for field in described}
    missing = [visible(c.name) for c in file.columns if visible(c.name) not in names]
    left_out = f" Not described as fields: {', '.join(missing)}." if missing else ""
    return {
        "@type": "cr:RecordSet",
        "@id": f"rows-{index}",
        "name": f"rows-{index}",
        "description": f"The {file.num_rows:,} kept rows of {visible(file.name)}.{left_out}",
        "field": described,
    }


def _fields(index: int, file: DataFile) -> Iterator[dict[str, Any]]:
    plain, _, compression = file.file_type.partition(".")
    if compression not in ("", "gz") or (plain == "csv" and "sep" in file.reading):
        return  # no reader of Croissant opens these; the file is described all the same
    for number, column in enumerate(file.columns):
        if plain == "json":
            field = _json_field(index, number, column, file.reading.get("field"))
        else:
            field = _column_field(index, number, column)
        if field is not None:
            yield field


def _column_field(index: int, number: int, column: Column) -> dict[str, Any] | None:
    identity = f"rows-{index}/column-{number}"
    source = {"fileObject": {"@id": f"file-{index}"}, "extract": {"column": column.name}}
    if column.kind in _TYPES:
        return _leaf(identity, column, source)
    if column.kind != "object" or not column.members:
        return None
    members = [
        _leaf(
            f"{identity}/member-{position}",
            member,
            source | {"transform": {"jsonPath": member.name}},
        )
        for position, member in enumerate(column.members)
        if member.kind in _TYPES and not member.is_list and _PLAIN_NAME.fullmatch(member.name)
    ]
    if not members:
        return None
    array = {"isArray": True, "arrayShape": "-1"} if column.is_list else {}
    return {
        "@type": "cr:Field",
        "@id": identity,
        "name": visible(column.name),
        **array,
        "subField": members,
    }


def _json_field(index: int, number: int, column: Column, rows: str | None) -> dict[str, Any] | None:
    """A column of a JSON array; values are paired by position, so that each row must have it."""
    names = [column.name, *([rows] if rows is not None else [])]
    plain = all(_PLAIN_NAME.fullmatch(name) for name in names)
    if not (plain and column.in_every_row and column.kind in _TYPES) or column.is_list:
        return None
    path = f"{rows}[*].{column.name}" if rows is not None else f"$[*].{column.name}"
    source = {"fileObject": {"@id": f"file-{index}"}, "extract": {"jsonPath": path}}
    return _leaf(f"rows-{index}/column-{number}", column, source)


def _leaf(identity: str, column: Column, source: dict[str, Any]) -> dict[str, Any]:
    array = {"isArray": True, "arrayShape": "-1"} if column.is_list else {}
    return {
        "@type": "cr:Field",
        "@id": identity,
        "name": visible(column.name),
        "dataType": _TYPES[column.kind],
        **array,
        "source": source,
    }


def file_hashes(text: str) -> dict[str, str]:
    """sha256 by path, as a `croissant.json` states them.

    Raises:
        ValueError: not the JSON of such a file.
    """
    objects: Sequence[Any] = json.loads(text)["distribution"]
    return {str(one["contentUrl"]): str(one["sha256"]) for one in objects}
