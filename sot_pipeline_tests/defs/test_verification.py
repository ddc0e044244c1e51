"""A folder that differs in one byte is found out, and a hostile one does no harm."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sot_pipeline.definitions import ASSETS, JOBS
from sot_pipeline.defs.documents import DocumentOptions, write_purified
from sot_pipeline.defs.verification import Verdict, verify_folder
from sot_pipeline.errors import InputError
from sot_pipeline.publishing.provenance import MANIFEST, MANIFEST_HASH, hash_line
from sot_pipeline_tests.small_home import SmallProject


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> SmallProject:
    project = SmallProject(tmp_path_factory.mktemp("project"))
    for asset in ASSETS:
        if asset.name in JOBS["purify"] - {"purification_report", "purification_changes"}:
            project.run_only(asset.name)
    return project


@pytest.fixture(scope="module")
def written(project, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("written") / "out"
    write_purified(project.home, "small", out, project.files["safe"], DocumentOptions())
    return out


@pytest.fixture
def folder(written, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "out"))


def kinds(verdict: Verdict) -> set[tuple[str, str]]:
    return {(problem.kind, problem.file) for problem in verdict.problems}


def forge(folder: Path, change) -> None:
    """Change the manifest and its hash, as somebody would who wants to deceive."""
    document = json.loads((folder / MANIFEST).read_text())
    change(document)
    content = json.dumps(document).encode()
    (folder / MANIFEST).write_bytes(content)
    (folder / MANIFEST_HASH).write_bytes(hash_line(content))


def rehash(folder: Path, name: str) -> None:
    """State a file's present hash in the manifest."""
    import hashlib

    content = (folder / name).read_bytes()

    def change(document):
        for subject in document["subject"]:
            if subject["name"] == name:
                subject["digest"]["sha256"] = hashlib.sha256(content).hexdigest()
                subject["annotations"]["bytes"] = len(content)

    forge(folder, change)


def test_what_was_written_is_well(project, written):
    verdict = verify_folder(written, home=project.home, require_inputs=True)
    assert verdict.problems == []
    assert (verdict.num_files, verdict.num_inputs, verdict.inputs_elsewhere) == (7, 3, [])
    assert verdict.num_artefacts > 8
    assert json.loads(json.dumps(verdict.as_document()))["well"]


@given(data=st.data())
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)
def test_any_changed_byte_of_any_file_is_found(written, folder, data):
    names = sorted(path.name for path in written.iterdir() if path.stat().st_size)
    name = data.draw(st.sampled_from(names))
    content = bytearray((written / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(content)
    try:
        problems = verify_folder(folder).problems
    except InputError:  # a manifest that cannot be read any more
        assert name == MANIFEST
    else:
        assert [p for p in problems if p.file in (name, MANIFEST)]
    finally:
        shutil.copyfile(written / name, folder / name)
    assert verify_folder(folder).problems == []


@given(data=st.data())
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30
)
def test_any_file_that_is_cut_short_or_longer_is_found(written, folder, data):
    name = data.draw(st.sampled_from(sorted(path.name for path in written.iterdir())))
    content = (written / name).read_bytes()
    cut = data.draw(st.integers(0, max(0, len(content) - 1)))
    (folder / name).write_bytes(
        content[:cut] if data.draw(st.booleans()) and content else content + b" "
    )
    try:
        assert verify_folder(folder).problems
    except InputError:
        assert name == MANIFEST
    finally:
        shutil.copyfile(written / name, folder / name)


def test_missing_and_unknown_files_are_named(folder):
    (folder / "purified.jsonl").unlink()
    (folder / "notes.txt").write_text("mine")
    (folder / "sub").mkdir()
    (folder / "sub" / "more.txt").write_text("mine")
    assert kinds(verify_folder(folder)) == {
        ("missing", "purified.jsonl"), ("unknown", "notes.txt"), ("unknown", "sub/more.txt"),
    }  # fmt: skip


def test_links_are_named_and_not_followed(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "a.txt").write_text("a")
    (folder / "purified.jsonl").rename(tmp_path / "elsewhere.jsonl")
    (folder / "purified.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")  # the very same bytes
    (folder / "there").symlink_to(secret)
    os.mkfifo(folder / "pipe")  # opening it would wait for ever
    assert kinds(verify_folder(folder)) == {
        ("link", "purified.jsonl"), ("missing", "purified.jsonl"), ("link", "there"),
        ("link", "pipe"),
    }  # fmt: skip


def test_a_linked_manifest_is_none(folder, tmp_path):
    (folder / MANIFEST).rename(tmp_path / "manifest")
    (folder / MANIFEST).symlink_to(tmp_path / "manifest")
    with pytest.raises(InputError, match=r"holds no provenance\.json"):
        verify_folder(folder)


def test_a_manifest_that_lists_files_elsewhere_is_refused(folder, tmp_path):
    (tmp_path / "secret.txt").write_text("a")
    forge(folder, lambda d: d["subject"].append(d["subject"][0] | {"name": "../secret.txt"}))
    with pytest.raises(InputError, match="no path inside the folder"):
        verify_folder(folder)


def test_a_huge_manifest_is_refused_before_it_is_read(folder):
    with (folder / MANIFEST).open("r+b") as file:
        file.truncate(2**40)  # sparse: takes no room
    with pytest.raises(InputError, match="it is no manifest of this project"):
        verify_folder(folder)


def test_no_folder_and_no_manifest_are_told(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        verify_folder(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no provenance\.json"):
        verify_folder(tmp_path)


def test_the_hash_of_the_manifest_can_be_demanded(written):
    first = verify_folder(written)
    assert verify_folder(written, expected_hash=first.manifest_hash.upper()).problems == []
    assert kinds(verify_folder(written, expected_hash="0" * 64)) == {("changed", MANIFEST)}


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("README.md", "num_kept: 48", "num_kept: 47", "says num_kept 47, the manifest 48"),
        ("README.md", "sot_pipeline:", "other:", "cannot be read"),
        ("TRAINING_CONTENT.md", " | 48 | ", " | 47 | ", "another purification"),
        ("croissant.json", '"sha256": "', '"sha256": "f', "another sha256 of purified.jsonl"),
        (
            "croissant.json",
            '"contentUrl": "',
            '"contentUrl": "x',
            "does not describe purified.jsonl",
        ),
        ("croissant.json", "{", "", "cannot be read"),
    ],
)
def test_documents_that_were_edited_and_hashed_anew_do_not_agree(folder, name, old, new, sentence):
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    rehash(folder, name)
    found = [p.sentence for p in verify_folder(folder).problems]
    assert any(sentence in one for one in found)
    assert all(problem.kind == "disagreement" for problem in verify_folder(folder).problems)


def test_yaml_that_grows_without_end_is_not_expanded(folder):
    card = (folder / "README.md").read_text()
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    head = "\n".join([*lines, "sot_pipeline: {num_kept: *a29}"])
    (folder / "README.md").write_text(f"---\n{head}\n---\n{card}")
    rehash(folder, "README.md")
    sentences = [p.sentence for p in verify_folder(folder).problems]
    assert "README.md: says num_kept list, the manifest 48" in sentences


def test_rows_that_were_dropped_and_hashed_anew_do_not_agree(folder):
    lines = (folder / "purified.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "purified.jsonl").write_bytes(b"".join(lines[1:]))
    rehash(folder, "purified.jsonl")
    sentences = " ".join(p.sentence for p in verify_folder(folder).problems)
    assert "holds 47 rows, the manifest says 48" in sentences
    assert "croissant.json: another sha256" in sentences


def test_counts_that_do_not_add_up_are_found(folder):
    forge(folder, lambda d: d["predicate"]["sot_data"].update(rowsKept=50))
    sentences = " ".join(p.sentence for p in verify_folder(folder).problems)
    assert "kept, removed and rejected are not those read" in sentences
    assert "the files of rows do not hold the rows kept" in sentences
    assert "ledger.parquet" in sentences


def test_a_changed_input_is_found_and_one_that_is_gone_only_if_asked_for(folder, tmp_path):
    here, gone, odd = tmp_path / "here.jsonl", tmp_path / "gone.jsonl", tmp_path / "odd"
    here.write_text("changed")
    os.mkfifo(odd)

    def change(document):
        sources = document["predicate"]["buildDefinition"]["resolvedDependencies"]
        for source, path in zip(sources, (here, gone, odd), strict=True):
            source["uri"] = path.as_uri()

    forge(folder, change)
    verdict = verify_folder(folder)
    assert kinds(verdict) == {("input", "custom.jsonl"), ("input", "harmful.jsonl")}
    assert verdict.inputs_elsewhere == ["safe.jsonl"]
    assert ("input", "safe.jsonl") in kinds(verify_folder(folder, require_inputs=True))


@pytest.mark.parametrize(
    "uri", ["https://example.org/x", "file://server/x", "file:///a%00b", "x", None]
)
def test_addresses_that_are_no_local_file_are_not_opened(folder, uri):
    def change(document):
        for source in document["predicate"]["buildDefinition"]["resolvedDependencies"]:
            source["uri"] = uri

    forge(folder, change)
    verdict = verify_folder(folder)
    assert verdict.problems == []
    assert len(verdict.inputs_elsewhere) == 3


def test_what_the_store_lacks_or_holds_damaged_is_found(project, folder, tmp_path):
    from sot_pipeline.defs.home import Home

    copy = Home(shutil.copytree(project.home.root, tmp_path / "data"))
    selected = next((copy.store / "selected_samples").iterdir())
    (selected / "table.duckdb").write_bytes(b"damaged")
    shutil.rmtree(next((copy.store / "sample_weights").iterdir()))
    verdict = verify_folder(folder, home=copy)
    assert {(p.kind, p.file.split("/")[0]) for p in verdict.problems} == {
        ("store", "selected_samples"), ("store", "sample_weights"),
    }  # fmt: skip
    assert verify_folder(folder, home=Home(tmp_path / "empty")).num_artefacts == 0


def test_names_of_any_kind_are_told_without_control_characters(folder):
    (folder / "a\x1b[31m\nb").write_text("x")
    (problem,) = verify_folder(folder).problems
    assert problem.sentence == "a\\u001b[31m\\nb was not written by the export"
