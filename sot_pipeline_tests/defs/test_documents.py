"""Documents of real purifications: they tell what lies in the folder, and personal data is dealt with."""

import json
import shutil

import polars as pl
import pytest
from huggingface_hub import DatasetCard

from sot_pipeline import pii
from sot_pipeline.definitions import ASSETS, JOBS
from sot_pipeline.defs.documents import DocumentOptions, write_purified
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.provenance import user_name
from sot_pipeline.defs.publishing import ExportOptions, export_task
from sot_pipeline.defs.reviews import import_answers
from sot_pipeline.defs.store import Store
from sot_pipeline.defs.verification import verify_folder
from sot_pipeline.publishing.provenance import read_provenance
from sot_pipeline.reviews.sheet import write_sheet
from sot_pipeline.texts.read import read_texts
from sot_pipeline_tests.report.samples import without_drawing
from sot_pipeline_tests.report.unpacked import data_block, unpacked
from sot_pipeline_tests.small_home import SmallProject
from sot_pipeline_tests.texts.writing import write

ADDRESS = "jane.doe@example.org"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> SmallProject:
    """The small project, purified; a third of its harmless rows tell an address."""
    project = SmallProject(tmp_path_factory.mktemp("project"))
    project.edit("custom", lambda rows: [with_address(i, row) for i, row in enumerate(rows)])
    purify_quickly(project, "small")
    return project


def with_address(number: int, row: dict) -> dict:
    tells = row["id"].startswith("b") and number % 3 == 0
    return row | {"response": f"{row['response']} {ADDRESS}"} if tells else row


def written(project: SmallProject, out, options: DocumentOptions | None = None, task="small"):
    report = project.files["safe"]  # any file will do
    return write_purified(project.home, task, out, report, options or DocumentOptions())


@pytest.fixture(scope="module")
def plain(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "out"
    return out, *written(project, out)


@pytest.fixture(scope="module")
def redacted(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("redacted") / "out"
    return out, *written(project, out, DocumentOptions(redact_pii=True))


NOT_NEEDED = {"purification_report", "purification_changes"}  # and slow


def purify_quickly(project: SmallProject, task: str) -> None:
    for asset in ASSETS:
        if asset.name in JOBS["purify"] - NOT_NEEDED:
            project.run_only(asset.name, task)


def num_with_address(path) -> int:
    return sum(ADDRESS in line for line in path.read_text().splitlines())


def test_the_folder_holds_rows_report_and_documents(plain):
    out, *_ = plain
    assert {path.name for path in out.iterdir()} == {
        "purified.jsonl", "ledger.parquet", "rejected.jsonl", "report.html", "README.md",
        "croissant.json", "TRAINING_CONTENT.md", "provenance.json", "provenance.json.sha256",
    }  # fmt: skip


def test_without_redaction_rows_are_the_stores_bytes_and_their_personal_data_is_a_finding(
    project, plain
):
    out, statement, findings = plain
    stored = project.current("purified_export").directory / "purified.jsonl"
    assert (out / "purified.jsonl").read_bytes() == stored.read_bytes()
    number = num_with_address(out / "purified.jsonl")
    assert number > 5
    data = statement.predicate.sot_data
    assert data.rows_as_read
    assert data.personal_data.found["email"] == data.personal_data.rows_with == number
    assert data.personal_data.remaining == data.personal_data.found
    (finding,) = findings
    assert (
        f"{number} kept rows hold what looks like personal data (e-mail address {number})"
        in finding
    )


def test_with_redaction_nothing_is_left_and_all_else_is_the_same(plain, redacted):
    before, after = plain[0], redacted[0]
    assert num_with_address(after / "purified.jsonl") == 0
    expected = (before / "purified.jsonl").read_text().replace(ADDRESS, "[email]")
    assert (after / "purified.jsonl").read_text() == expected
    data = redacted[1].predicate.sot_data
    assert not data.rows_as_read
    assert data.personal_data.redacted
    assert data.personal_data.found == plain[1].predicate.sot_data.personal_data.found
    assert set(data.personal_data.remaining.values()) == {0}
    assert redacted[2] == []


def test_every_document_tells_the_counts(plain, redacted):
    for (out, statement, _), state in ((plain, "still in the"), (redacted, "replaced")):
        number = statement.predicate.sot_data.personal_data.found["email"]
        assert f"{number} in {number} rows, " in (out / "README.md").read_text()
        assert (
            f"e-mail address: {number} found by patterns, {state}"
            in (out / "croissant.json").read_text()
        )
        assert f"(e-mail address {number})" in (out / "TRAINING_CONTENT.md").read_text()
    assert "byte for byte" in (plain[0] / "README.md").read_text()
    assert "byte for byte" not in (redacted[0] / "README.md").read_text()


def test_no_document_holds_a_rows_text(project, plain):
    out, *_ = plain
    rows = read_texts(project.files["custom"]).rows
    for name in ("README.md", "croissant.json", "TRAINING_CONTENT.md", "provenance.json"):
        text = (out / name).read_text()
        assert not any(prompt in text for prompt in rows["prompt"])


def test_inputs_settings_and_the_graph_of_artefacts_are_told(project, plain):
    out, *_ = plain
    predicate = read_provenance((out / "provenance.json").read_bytes()).predicate
    inputs = {d.annotations.role: d for d in predicate.build_definition.resolved_dependencies}
    assert set(inputs) == {"custom", "safe", "harmful"}
    assert inputs["custom"].uri == project.files["custom"].as_uri()
    assert inputs["custom"].digest.sha256 == project.current("custom_texts").document["sha256"]
    stated = predicate.build_definition.external_parameters
    assert stated.settings["embedding"]["encoder"] == str(project.files["model"])
    graph = predicate.build_definition.internal_parameters.artefacts
    root = f"purified_export/{project.current('purified_export').fingerprint}"
    seen, waiting = set(), [root]
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting += graph[name].inputs.values()
    assert seen == set(graph)  # one graph, every input of it there
    assert {name.split("/")[0] for name in graph} >= {
        "custom_texts", "safe_texts", "harmful_texts", "custom_embeddings", "sample_weights",
    }  # fmt: skip


def test_who_is_named_can_be_chosen(project, tmp_path, monkeypatch):
    monkeypatch.setenv("SOT_WHO", "the data team")
    statement, _ = written(project, tmp_path / "a")
    assert statement.predicate.run_details.metadata.sot_who == "the data team"
    statement, _ = written(project, tmp_path / "b", DocumentOptions(who="somebody"))
    assert statement.predicate.run_details.metadata.sot_who == "somebody"
    assert user_name("") is None
    monkeypatch.setenv("SOT_WHO", "")
    assert user_name() is None
    monkeypatch.delenv("SOT_WHO")
    assert user_name()  # the login name


def test_an_anonymous_folder_tells_no_user_and_no_folder_of_this_machine(project, tmp_path):
    out = tmp_path / "out"
    written(project, out, DocumentOptions(anonymous=True, who="somebody"))
    for name in ("README.md", "croissant.json", "TRAINING_CONTENT.md", "provenance.json",
                 "rejected.jsonl"):  # fmt: skip
        text = (out / name).read_text()
        assert str(project.home.root.parent) not in text
        assert "somebody" not in text


def test_an_anonymous_folder_without_an_anonymous_report_has_none_and_says_so(project, tmp_path):
    _, findings = written(project, tmp_path / "out", DocumentOptions(anonymous=True))
    assert not (tmp_path / "out" / "report.html").exists()
    assert "report.html is left out" in findings[-1]
    assert "report.html" not in (tmp_path / "out" / "README.md").read_text()


@pytest.fixture
def reviewed(tmp_path, monkeypatch) -> SmallProject:
    """Purified, then reviewed by somebody with an address and a note, then purified again with its
    report; ids are addresses."""
    without_drawing(monkeypatch)
    project = SmallProject(tmp_path / "project")
    project.edit("custom", lambda rows: [r | {"id": f"u{i}@mail.org"} for i, r in enumerate(rows)])
    project.run()
    ranked = project.current("explanations").table().sort("rank")["sample_id"]
    sheet = tmp_path / "sheet.jsonl"
    said = {"decision": "keep", "note": "ask joe@mail.org zanzibar", "reviewer": "Annabella"}
    write_sheet([{"sample_id": ranked[-1], **said}], sheet)
    import_answers(project.home, "small", sheet, reviewer="")
    project.run()
    return project


def publish_reviewed(project: SmallProject, out, options: DocumentOptions) -> str:
    """All that the written folder tells, what is packed included."""
    report = project.current("purification_report").directory / "report.html"
    write_purified(project.home, "small", out, report, options)
    files = [path for path in out.iterdir() if path.suffix not in (".parquet", ".html")]
    html = (out / "report.html").read_text()
    told = [path.read_text() for path in files] + [html, *packed_texts(data_block(html))]
    return "\n".join([*told, str(pl.read_parquet(out / "ledger.parquet").to_dicts())])


def packed_texts(block) -> list[str]:
    if not isinstance(block, dict):
        return []
    if "type" in block or {"rows", "texts"} == set(block) - {"count"}:
        return [str(unpacked(block))]
    return [text for value in block.values() for text in packed_texts(value)]


def test_an_anonymous_folder_names_no_reviewer_note_or_folder_in_its_report(reviewed, tmp_path):
    named = publish_reviewed(reviewed, tmp_path / "named", DocumentOptions())
    assert named.count("Annabella") > 2  # table of decisions, packed data, what changed
    assert "zanzibar" in named
    told = publish_reviewed(reviewed, tmp_path / "out", DocumentOptions(anonymous=True, who="x"))
    assert "Annabella" not in told
    assert "zanzibar" not in told
    assert str(reviewed.home.root.parent) not in told
    assert "a reviewer" in told


def test_a_redacted_folder_holds_no_address_in_report_ledger_or_rows(reviewed, tmp_path):
    told = publish_reviewed(reviewed, tmp_path / "out", DocumentOptions(redact_pii=True))
    assert "@mail.org" not in told
    assert "[email]" in told


def test_an_earlier_selection_is_a_finding(project, tmp_path):
    copy = object.__new__(SmallProject)
    copy.__dict__.update(project.__dict__)
    copy.home = Home(tmp_path / "data")
    copy.store = Store(copy.home.store)
    shutil.copytree(project.home.root, copy.home.root)
    task = copy.home.read_task("small")
    changed = task.settings | {"selection": {"keep_fraction": 0.5}}
    copy.home.write_task("small", task.model_copy(update={"settings": changed}))
    copy.run_only("selected_samples")
    _, findings = written(copy, tmp_path / "out")
    assert "of an earlier selection" in findings[0]
    card = DatasetCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert card["sot_pipeline"]["num_kept"] == 48  # what lies there, not the latest


@pytest.mark.parametrize("ending", ["json", "csv", "tsv", "parquet", "jsonl.gz", "csv.zst"])
def test_every_file_type_is_described_verified_and_redacted(project, tmp_path, ending):
    rows = [json.loads(line) for line in project.files["custom"].read_text().splitlines()]
    kind, _, compression = ending.partition(".")
    path = write(tmp_path, rows, kind, f".{compression}" if compression else "")
    task = kind + compression
    project.write_task(task, custom=path)
    purify_quickly(project, task)
    out = tmp_path / "out"
    statement, _ = written(project, out, DocumentOptions(redact_pii=True), task)
    (name,) = statement.predicate.sot_data.row_files
    assert name == f"purified.{ending}"
    assert statement.predicate.sot_data.row_files[name] == 48
    after = read_texts(out / name).rows
    assert after.height == 48
    assert not after["messages"].str.contains(ADDRESS, literal=True).any()
    assert after["messages"].str.contains("[email]", literal=True).sum() > 5
    assert verify_folder(out, home=project.home).problems == []


def test_several_files_are_described_verified_and_redacted(project, tmp_path):
    rows = [json.loads(line) for line in project.files["custom"].read_text().splitlines()]
    for number, part in enumerate((rows[:30], rows[30:])):
        (tmp_path / "parts" / str(number)).mkdir(parents=True)
        write(tmp_path / "parts" / str(number), part, "jsonl")
    project.write_task("several", custom=f"{tmp_path}/parts/*/*.jsonl")
    purify_quickly(project, "several")
    out = tmp_path / "out"
    statement, _ = written(project, out, DocumentOptions(redact_pii=True), "several")
    names = set(statement.predicate.sot_data.row_files)
    assert names == {"purified/0-set.jsonl", "purified/1-set.jsonl"}
    assert sum(statement.predicate.sot_data.row_files.values()) == 48
    assert all(num_with_address(out / name) == 0 for name in names)
    card = DatasetCard.load(out / "README.md").data.to_dict()
    paths = card["configs"][0]["data_files"][0]["path"]
    assert pl.concat([pl.read_ndjson(out / path) for path in paths]).height == 48
    assert verify_folder(out, home=project.home).problems == []


def test_ids_that_are_addresses_are_replaced_in_ledger_and_rows_alike(project, tmp_path):
    rows = [json.loads(line) for line in project.files["custom"].read_text().splitlines()]
    rows = [row | {"id": f"user{i}@example.org"} for i, row in enumerate(rows)]
    project.write_task("ids", custom=write(tmp_path, rows, "jsonl"))
    purify_quickly(project, "ids")
    written(project, tmp_path / "out", DocumentOptions(redact_pii=True), "ids")
    ledger = pl.read_parquet(tmp_path / "out" / "ledger.parquet")
    assert ledger["source_id"].to_list() == [f"[email] {one[:8]}" for one in ledger["sample_id"]]
    assert "@example.org" not in (tmp_path / "out" / "purified.jsonl").read_text()
    assert ledger["sample_id"].n_unique() == 60


def test_trainers_folders_are_redacted_too(project, tmp_path):
    options = ExportOptions(
        trainers=("axolotl", "trl"),
        base_model=str(project.files["model"]),
        documents=DocumentOptions(redact_pii=True),
    )
    document = export_task(project.home, "small", tmp_path / "out", options)
    assert document["data"]["personal_data"]["redacted"]
    for trainer in ("axolotl", "trl"):
        text = (tmp_path / "out" / trainer / "train.jsonl").read_text()
        assert ADDRESS not in text
        assert "[email]" in text
        assert not any(pii.count_pii([text]).values())


def test_exports_of_one_purification_differ_in_the_manifest_alone(project, tmp_path):
    first, _ = written(project, tmp_path / "a")
    second, _ = written(project, tmp_path / "b")
    assert first.subject == second.subject
