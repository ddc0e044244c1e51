"""`sot export`: a task's results for other tools."""

from pathlib import Path
from typing import Any

from sot_pipeline.cli.output import DONE, FINDINGS, print_json, say
from sot_pipeline.defs.home import Home


def run_export(
    root: Path | None,
    task: str,
    out: Path,
    options: dict[str, Any],
    documents: dict[str, Any],
    as_json: bool,
) -> int:
    from sot_pipeline.defs.documents import DocumentOptions
    from sot_pipeline.defs.publishing import ExportOptions, export_task

    chosen = ExportOptions(**options, documents=DocumentOptions(**documents))
    document = export_task(Home(root), task, out, chosen, log=say)
    if as_json:
        print_json(document)
    else:
        _print(document)
    return FINDINGS if document["findings"] else DONE


def _print(document: dict[str, Any]) -> None:
    data = document["data"]
    say(f"{data['rows_kept']:,} of {data['rows_read']:,} rows, with card, Croissant and provenance")
    for name, written in document.get("trainers", {}).items():
        say(f"{name}: {written['num_rows']:,} lines of {written['num_conversations']:,} rows")
    _say_weights(document)
    if "merged" in document:
        merged = document["merged"]
        say(
            f"merged in {merged['dtype']}: logits differ by at most "
            f"{merged['largest_difference']:.1e} of the largest, {merged['rounding_share']:.1%} "
            "of what the adapter changes"
        )
    for finding in document["findings"]:
        say(f"warning: {finding}")
    if document.get("serve"):
        say(f"in {document['out']}/adapter: {document['serve']}")
    print(document["out"])


def _say_weights(document: dict[str, Any]) -> None:
    if "trainers" not in document:
        return
    note = document["resampling"]
    if note is None:
        say(
            "these trainers take no weights: every purified row is there once; --resample copies "
            "rows in proportion to their weights"
        )
        return
    say(
        f"{note['num_rows']:,} rows copied by weight to {note['num_copies']:,}: "
        f"{note['num_lost']:,} of small weight are missing, effective sample size "
        f"{note['effective_after']:,.1f} (of the weights {note['effective_before']:,.1f})"
    )
