"""Whether the documents of a folder agree with its manifest, and the rows with both."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from sot_pipeline.errors import InputError

if TYPE_CHECKING:
    from sot_pipeline.publishing.provenance import DataCounts, Statement

_MAX_DOCUMENT = 16 * 2**20  # bytes of a card or of Croissant metadata


class Problem(NamedTuple):
    """`kind`: changed, missing, unknown, link, disagreement, input or store."""

    kind: str
    file: str
    sentence: str


def disagreements(
    found: Mapping[str, Path], statement: "Statement", sound: set[str]
) -> Iterator[Problem]:
    """What the documents say against the manifest; of those that are as they were written."""
    from sot_pipeline.publishing.croissant import CROISSANT
    from sot_pipeline.publishing.dataset_card import CARD
    from sot_pipeline.publishing.training_content import SUMMARY

    data = statement.predicate.sot_data
    checks = {
        CROISSANT: lambda path: _croissant_differences(path, statement),
        CARD: lambda path: _card_differences(path, data),
        SUMMARY: lambda path: _summary_differences(path, data),
        **{name: _rows_differ(data, name) for name in data.row_files},
        "ledger.parquet": lambda path: _ledger_differences(path, data),
    }
    for name, differences in checks.items():
        if name not in statement.sizes_and_hashes:
            yield Problem("disagreement", name, f"the manifest lists no {shown(name)}")
        elif name in sound:
            try:
                yield from (
                    Problem("disagreement", name, f"{shown(name)}: {sentence}")
                    for sentence in differences(found[name])
                )
            except (InputError, ValueError, KeyError, TypeError, RecursionError, OSError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                yield Problem(
                    "disagreement", name, f"{shown(name)} cannot be read ({shown(reason)})"
                )
    if data.rows_read != data.rows_rejected + data.rows_kept + data.rows_removed:
        yield Problem(
            "disagreement", "provenance.json", "rows kept, removed and rejected are not those read"
        )
    if sum(data.row_files.values()) != data.rows_kept:
        yield Problem(
            "disagreement", "provenance.json", "the files of rows do not hold the rows kept"
        )


def _document(path: Path) -> str:
    if path.stat().st_size > _MAX_DOCUMENT:
        raise InputError(f"larger than {_MAX_DOCUMENT:,} bytes")
    return path.read_text(encoding="utf-8")


def _croissant_differences(path: Path, statement: "Statement") -> Iterator[str]:
    from sot_pipeline.publishing.croissant import file_hashes

    stated = file_hashes(_document(path))
    written = statement.sizes_and_hashes
    for name, sha256 in stated.items():
        if written.get(name, (0, ""))[1] != sha256:
            yield f"another sha256 of {shown(name)} than the manifest's"
    for name in statement.predicate.sot_data.row_files.keys() - stated.keys():
        yield f"does not describe {shown(name)}"


def _card_differences(path: Path, data: "DataCounts") -> Iterator[str]:
    from sot_pipeline.publishing.dataset_card import OWN_KEY

    head = _document(path).removeprefix("---\n").partition("\n---\n")[0]
    stated = yaml.safe_load(head)[OWN_KEY]
    expected = {
        "data_fingerprint": data.data_fingerprint,
        "num_kept": data.rows_kept,
        "num_removed": data.rows_removed,
        "personal_data_found": sum(data.personal_data.found.values()),
        "personal_data_redacted": data.personal_data.redacted,
    }
    for name, value in expected.items():
        found = stated.get(name)
        if found != value:
            told = found if isinstance(found, str | int) else type(found).__name__
            yield f"says {name} {shown(str(told))}, the manifest {value}"


def _summary_differences(path: Path, data: "DataCounts") -> Iterator[str]:
    row = f"| {data.data_fingerprint} | {data.rows_kept:,} |"
    if row not in _document(path):
        yield "tells of another purification than the manifest"


def _rows_differ(data: "DataCounts", name: str):
    def differences(path: Path) -> Iterator[str]:
        from sot_pipeline.texts.row_texts import num_rows

        found = num_rows(path)
        if found != data.row_files[name]:
            yield f"holds {found:,} rows, the manifest says {data.row_files[name]:,}"

    return differences


def _ledger_differences(path: Path, data: "DataCounts") -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as ledger:
            num_rows = ledger.metadata.num_rows
            if num_rows != data.rows_kept + data.rows_removed:
                yield f"holds {num_rows:,} rows, the manifest says otherwise"
                return
            kept = 0
            for batch in ledger.iter_batches(batch_size=65_536, columns=["kept"]):
                kept += pc.sum(batch.column("kept")).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
    except pa.ArrowException as error:
        raise InputError(f"no ledger: {type(error).__name__}") from error
    if kept != data.rows_kept:
        yield f"says that {kept:,} rows were kept, the manifest {data.rows_kept:,}"


def shown(text: str) -> str:
    """A name of any origin, on a terminal: no control characters, not endless."""
    return json.dumps(text, ensure_ascii=True)[1:-1][:300]
