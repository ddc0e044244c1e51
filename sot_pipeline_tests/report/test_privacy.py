"""What a report shows of people."""

import json

import polars as pl
import pytest

from sot_pipeline.report.privacy import anonymous, redacted
from sot_pipeline.report.render import render_both, render_report
from sot_pipeline_tests.report.samples import ledger, report_data, without_drawing
from sot_pipeline_tests.report.unpacked import data_block, unpacked

ADDRESS = "jane@mail.org"
ROWS = ledger().with_columns(
    sample_id=pl.Series([f"{i:08x}00000000-0" for i in range(40)]),
    source_id=pl.Series([f"{i}{ADDRESS}" for i in range(40)]),
    file=pl.lit(f"{ADDRESS}.jsonl"),
)
FIRST = ROWS["sample_id"][0]
DECISIONS = pl.DataFrame(
    {
        "sample_id": [FIRST], "decision": ["keep"], "reviewer": ["Annabella"],
        "note": [f"ask {ADDRESS}"], "decided": ["2026-11-20"],
    }
)  # fmt: skip
CHANGES = pl.DataFrame(
    {
        "change": ["newly_kept"], "text_set": ["custom"], "sample_id": [FIRST],
        "source_id": [ADDRESS], "rank_before": [40], "rank_after": [1],
        "because": ["a reviewer's decision"], "because_of": ["Annabella"], "share": [None],
        "line": [1],
    }
)  # fmt: skip


def personal():
    return report_data(
        ledger=ROWS,
        decisions=DECISIONS,
        changes=CHANGES,
        change_summary={"num_newly_kept": 1},
        settings={"embedding.encoder": "/home/annabella/bert", "selection.keep_fraction": 0.75},
        embedder="/home/annabella/bert",
    )


def told(html: str) -> str:
    columns = data_block(html)["columns"]
    packed = [unpacked(columns[name]) for name in ("source", "file", "decision")]
    return html + json.dumps(packed)


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    without_drawing(monkeypatch)


def test_addresses_in_ids_files_and_notes_reach_no_report():
    text = told(render_report(personal()))
    assert ADDRESS not in text
    assert "ask [email]" in text


def test_a_redacted_id_still_tells_which_row_it_is():
    ids = redacted(personal()).ledger["source_id"]
    assert ids[10] == "[email] 0000000a"
    assert ids.n_unique() == 40
    assert redacted(report_data()).ledger["source_id"][3] == "row-3"


def test_the_report_for_strangers_names_no_reviewer_and_no_folder():
    named, without = map(told, render_both(personal()))
    assert named.count("Annabella") >= 3
    assert "/home/annabella" in named
    for word in ("Annabella", "annabella", "ask [email]", "2026-11-20"):
        assert word not in without
    assert "a reviewer&#39;s decision" in without
    assert "bert" in without


def test_reference_rows_that_caused_a_change_are_named_to_strangers():
    changes = CHANGES.with_columns(because=pl.lit("harmful row added"), because_of=pl.lit("h-1"))
    kept = anonymous(report_data(changes=changes)).changes
    assert kept is not None
    assert kept["because_of"].to_list() == ["h-1"]
