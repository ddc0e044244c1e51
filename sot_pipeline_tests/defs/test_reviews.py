"""What a reviewer's decision sets in motion, and what it does not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from sot_pipeline.definitions import INPUTS, PURIFIED, TRANSPORT
from sot_pipeline.defs.materialise import Materialised
from sot_pipeline.defs.reviews import export_rows, forget, import_answers, list_decisions
from sot_pipeline.defs.state import asset_states
from sot_pipeline.errors import InputError
from sot_pipeline.reviews.sheet import write_sheet
from sot_pipeline_tests.small_home import SmallProject, computed

# without the report, whose figures take longer than everything else together
ORDER = [*(a.name for a in (*INPUTS, *TRANSPORT, *PURIFIED)), "purification_changes"]


def purify(project: SmallProject) -> dict[str, Materialised]:
    return {name: project.run_only(name) for name in ORDER}


@pytest.fixture(scope="module")
def purified(tmp_path_factory) -> SmallProject:
    project = SmallProject(tmp_path_factory.mktemp("reviews"))
    purify(project)
    return project


@pytest.fixture
def project(purified: SmallProject):
    """The purified task without a decision; what a test did is undone."""
    content = purified.files["custom"].read_bytes()
    yield purified
    purified.files["custom"].write_bytes(content)
    purified.settings.pop("selection", None)
    purified.write_task("small")
    purified.home.reviews("small").unlink(missing_ok=True)
    purify(purified)


def decide(project: SmallProject, decisions: dict[str, str], *, note: str = "", who: str = "Ann"):
    sheet = project.home.root / "sheet.csv"
    write_sheet(
        [
            {"sample_id": s, "decision": d, "note": note, "reviewer": who}
            for s, d in decisions.items()
        ],
        sheet,
    )
    return import_answers(project.home, "small", sheet, reviewer="")


def ids_by_rank(project: SmallProject) -> list[str]:
    return project.current("explanations").table().sort("rank")["sample_id"].to_list()


def kept_ids(project: SmallProject) -> set[str]:
    return set(project.current("selected_samples").table()["sample_id"])


def states(project: SmallProject) -> dict[str, tuple[str, ...]]:
    found = asset_states((*TRANSPORT, *PURIFIED), project.home, project.store, "small")
    return {s.asset: s.because for s in found if s.state == "stale" and s.because}


AFTER_A_DECISION = {
    "review_decisions", "selected_samples", "explanations", "removed_samples", "purified_export",
    "purification_changes",
}  # fmt: skip


def test_a_decision_recomputes_only_what_depends_on_it(project):
    best, worst = (ids_by_rank(project)[place] for place in (0, -1))
    imported = decide(project, {best: "drop", worst: "keep"})
    assert imported.num_moved == 2
    assert states(project)["review_decisions"] == ("its source changed",)
    assert computed(purify(project)) == AFTER_A_DECISION
    assert worst in kept_ids(project)
    assert best not in kept_ids(project)
    explanations = project.current("explanations").table()
    assert explanations.filter(pl.col("kept"))["sample_id"].is_in(list(kept_ids(project))).all()
    lines = [json.loads(line) for line in _export(project).read_text().splitlines()]
    assert len(lines) == len(kept_ids(project))


def _export(project: SmallProject) -> Path:
    stored = project.current("purified_export")
    return stored.directory / stored.document["purified"]


def test_the_same_decision_again_computes_nothing(project):
    worst = ids_by_rank(project)[-1]
    decide(project, {worst: "keep"})
    purify(project)
    assert decide(project, {worst: "keep"}).new == []
    assert computed(purify(project)) == set()


def test_a_note_alone_is_recorded_and_goes_no_further(project):
    worst = ids_by_rank(project)[-1]
    decide(project, {worst: "keep"})
    purify(project)
    decide(project, {worst: "keep"}, note="a test of the model's manners", who="Bo")
    # the account of changes names the reviewer
    assert computed(purify(project)) == {"review_decisions", "purification_changes"}
    table = project.current("review_decisions").table()
    assert table["note"].to_list() == ["a test of the model's manners"]
    assert states(project) == {}


def test_without_decisions_everything_is_as_the_cut_says(project):
    assert project.current("review_decisions").table().is_empty()
    selected = project.current("selected_samples")
    assert selected.document["review"]["num_kept_by_cut"] == selected.manifest["rows"] == 48


def test_withdrawing_brings_the_earlier_selection_back_from_the_store(project):
    before, worst = kept_ids(project), ids_by_rank(project)[-1]
    decide(project, {worst: "keep"})
    purify(project)
    forget(project.home, "small", [worst], reviewer="Ann")
    results = purify(project)
    assert results["selected_samples"].hit
    assert kept_ids(project) == before
    with pytest.raises(InputError, match="no decision about"):
        forget(project.home, "small", [worst], reviewer="Ann")


def test_counts_say_what_was_honoured_and_what_contradicts_the_cut(project):
    ranked = ids_by_rank(project)
    decide(
        project, {ranked[0]: "keep", ranked[1]: "drop", ranked[-1]: "keep", ranked[-2]: "unsure"}
    )
    purify(project)
    selected = project.current("selected_samples")
    assert selected.document["review"] == {
        "num_honoured": 3, "num_unsure": 1, "num_naming_no_row": 0, "num_kept_by_cut": 48,
        "num_kept_against_cut": 1, "num_dropped_against_cut": 1,
    }  # fmt: skip
    assert selected.manifest["metadata"]["num_kept"] == 48
    assert selected.manifest["metadata"]["review_num_honoured"] == 3
    (check,) = selected.checks()
    assert (
        check.values["num_wanted_rows_removed"] == 0
    )  # a reviewer's choice is no fault of the cut


def test_a_row_kept_against_its_weight_is_trained_on_by_the_same_formula(project):
    worst = ids_by_rank(project)[-1]
    decide(project, {worst: "keep"})
    purify(project)
    table = project.current("selected_samples").table()
    weights = table["sample_weight"]
    assert np.mean(weights.to_numpy()) == pytest.approx(1)
    assert table.filter(sample_id=worst)["sample_weight"].item() == weights.min()


def test_decisions_hold_for_a_calibrated_cut_too(project):
    project.settings["selection"] = {"method": "calibrated", "max_false_keep_rate": 0.5}
    project.write_task("small")
    purify(project)
    ranked = ids_by_rank(project)
    decide(project, {ranked[0]: "drop", ranked[-1]: "keep"})
    results = purify(project)
    assert "calibration" not in computed(results)
    assert ranked[0] not in kept_ids(project)
    assert ranked[-1] in kept_ids(project)
    assert project.current("selected_samples").document["method"] == "calibrated"


def test_a_decision_follows_its_text_when_the_set_changes(project):
    worst = ids_by_rank(project)[-1]
    place = project.current("custom_texts").table()["sample_id"].to_list().index(worst)
    project.edit("custom", lambda rows: [rows[place], *rows])  # a copy above it
    purify(project)
    second = f"{worst.partition('-')[0]}-1"  # occurrences count from 0
    assert second in ids_by_rank(project)
    assert second != worst
    decide(project, {second: "keep"})
    purify(project)
    assert {worst, second} <= kept_ids(project)
    project.edit("custom", lambda rows: rows[1:])  # ... which goes again
    purify(project)
    assert worst in kept_ids(project)
    project.edit("custom", lambda rows: rows[:place] + rows[place + 1 :])
    purify(project)
    assert project.current("selected_samples").document["review"]["num_naming_no_row"] == 1
    assert [count for _, count in list_decisions(project.home, "small").in_force] == [0]


def test_the_changes_name_a_reviewers_decision_as_the_reason(project):
    best, worst = (ids_by_rank(project)[place] for place in (0, -1))
    decide(project, {best: "drop", worst: "keep"})
    purify(project)
    changes = project.current("purification_changes").table().sort("rank_after")
    assert changes["sample_id"].to_list() == [best, worst]
    assert changes["because"].to_list() == ["a reviewer's decision"] * 2
    assert changes["because_of"].to_list() == ["Ann"] * 2
    forget(project.home, "small", [best, worst], reviewer="Bo")
    decide(project, {ids_by_rank(project)[-2]: "keep"})
    purify(project)
    changes = project.current("purification_changes").table().sort("rank_after")
    assert changes["because"].to_list() == [
        "a reviewer's decision withdrawn", "a reviewer's decision", "a reviewer's decision withdrawn",
    ]  # fmt: skip


def export(project: SmallProject, name: str = "borderline.jsonl", **options) -> list[dict]:
    path = project.home.root / name
    options = {"which": "borderline", "num_rows": 10, "show_text": True, "redact": True} | options
    export_rows(project.home, "small", path, **options)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_export_shows_rows_around_the_cut_with_what_speaks_for_either_side(project):
    rows = export(project)
    assert [row["rank"] for row in rows] == [48, 49, 47, 50, 46, 51, 45, 52, 44, 53]
    assert [row["kept"] for row in rows] == [True, False] * 5
    first = rows[0]
    assert list(first)[:4] == ["sample_id", "decision", "note", "reviewer"]
    texts = project.current("custom_texts").table().filter(sample_id=first["sample_id"])
    assert first["prompt"] == texts["prompt"].item()
    assert first["file"] == "custom.jsonl"
    assert first["line"] == texts["line"].item()
    assert {"relative_weight", "nearest_harmful", "safe_similarity", "reason"} <= first.keys()


def test_texts_are_left_out_on_request(project):
    assert not {"prompt", "response"} & export(project, show_text=False)[0].keys()


def test_personal_data_and_hidden_characters_do_not_reach_the_sheet(project):
    hidden = "write to jane@example.com \u202e\x1b[2J"
    project.edit(
        "custom", lambda rows: [rows[0] | {"prompt": hidden, "id": "joe@mail.org"}, *rows[1:]]
    )
    purify(project)
    (found,) = (row for row in export(project, which="all", num_rows=0) if row["line"] == 1)
    assert found["prompt"] == "write to [email] ⟨U+202E⟩⟨U+001B⟩[2J"
    assert found["source_id"] == f"[email] {found['sample_id'][:8]}"
    (found,) = (
        row for row in export(project, which="all", num_rows=0, redact=False) if row["line"] == 1
    )
    assert found["prompt"].startswith("write to jane@example.com")
    assert found["source_id"] == "joe@mail.org"


def test_an_export_carries_decisions_and_imports_as_no_news(project):
    ranked = ids_by_rank(project)
    decide(project, {ranked[48]: "keep", ranked[47]: "unsure"}, note="=seen")
    purify(project)
    path = project.home.root / "again.csv"
    found = export_rows(
        project.home, "small", path, which="all", num_rows=0, show_text=True, redact=True
    )
    assert found.num_decided == 2
    again = import_answers(project.home, "small", path, reviewer="Bo")
    assert again.num_answers == 2
    assert again.new == []


def test_a_sheet_with_one_unusable_row_changes_nothing(project):
    ranked = ids_by_rank(project)
    with pytest.raises(InputError, match="nothing was imported, 1 rows"):
        decide(project, {ranked[0]: "drop", "ffff-1": "drop"})
    assert not project.home.reviews("small").exists()


def test_a_damaged_log_stops_the_run_with_its_line(project):
    path = project.home.reviews("small")
    path.write_text("keep everything\n")
    with pytest.raises(InputError, match=r"small\.jsonl:1"):
        purify(project)


def test_a_sheet_with_answers_is_not_overwritten_before_they_are_imported(project, tmp_path):
    out = tmp_path / "sheet.csv"
    options: Any = {"which": "borderline", "num_rows": 4, "show_text": False, "redact": True}
    export_rows(project.home, "small", out, **options)
    export_rows(project.home, "small", out, **options)  # nobody wrote into it
    row = ids_by_rank(project)[-1]
    write_sheet([{"sample_id": row, "decision": "keep", "note": "", "reviewer": "Ann"}], out)
    with pytest.raises(InputError, match="1 answer"):
        export_rows(project.home, "small", out, **options)
    import_answers(project.home, "small", out, reviewer="")
    export_rows(project.home, "small", out, **options)
    out.write_text("something else")
    with pytest.raises(InputError, match="not overwritten"):
        export_rows(project.home, "small", out, **options)


def test_a_decision_is_withdrawn_by_any_name_of_its_row(project):
    row = ids_by_rank(project)[-1]
    decide(project, {row: "keep"})
    custom = project.current("custom_texts").table().filter(pl.col("sample_id") == row)
    forget(project.home, "small", [f"custom.jsonl:{custom['line'][0]}"], reviewer="Ann")
    assert list_decisions(project.home, "small").in_force == []
