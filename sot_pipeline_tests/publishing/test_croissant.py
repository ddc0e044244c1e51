"""Croissant metadata: MLCommons' own library finds no fault in it and reads the rows by it."""

import hashlib
import json
import logging
from pathlib import Path

import pytest

from sot_pipeline.publishing.croissant import CONFORMS_TO, croissant, file_hashes
from sot_pipeline.publishing.data_facts import DataFacts, DataFile
from sot_pipeline_tests.publishing.data_samples import FACTS, changed, redacted, write_rows
from sot_pipeline_tests.texts.writing import COMPRESSIONS, file_bytes

# of what mlcroissant 1.1.1 asks rdflib and pandas to do
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated, use Dataset:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning"),
]

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
CHAT = [{"id": i, "messages": TURNS, "score": i / 2, "good": i % 2 == 0} for i in range(3)]
PLAIN = [{"prompt": f"question {i}, or not", "response": f"answer\n{i}"} for i in range(3)]


def dataset(folder: Path, facts: DataFacts, caplog: pytest.LogCaptureFixture):
    """The metadata as mlcroissant reads it; any warning of its is a failure."""
    import mlcroissant

    (folder / "croissant.json").write_text(croissant(facts))
    with caplog.at_level(logging.WARNING):
        read = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    issues = read.metadata.ctx.issues
    assert not issues.errors
    assert not issues.warnings
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == []
    return read


def records(read, index: int = 0) -> list[dict]:
    """Rows by the names of their fields, texts as texts."""
    record_set = read.metadata.record_sets[index]
    names = {
        field.id: field.name
        for top in record_set.fields
        for field in (top, *top.sub_fields)
    }  # fmt: skip

    def told(value):
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, dict):
            return {names[key]: told(inner) for key, inner in value.items()}
        return [told(inner) for inner in value] if isinstance(value, list) else value

    return [told(record) for record in read.records(record_set.uuid)]


def facts_of(folder: Path, name: str, content: bytes) -> DataFacts:
    from sot_pipeline.texts.columns import file_columns, reading_options

    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    file_type = path.name.partition(".")[2]
    digest = hashlib.sha256(content).hexdigest()
    columns = tuple(file_columns(path))
    file = DataFile(name, file_type, 3, len(content), digest, columns, reading_options(path))  # pyright: ignore[reportArgumentType]
    return changed(files=[file])


def test_it_is_croissant_1_1_with_the_responsible_ai_fields(tmp_path, caplog):
    write_rows(tmp_path)
    metadata = dataset(tmp_path, FACTS, caplog).metadata
    assert metadata.ctx.is_v1_1()
    assert json.loads(croissant(FACTS))["conformsTo"] == CONFORMS_TO
    assert metadata.personal_sensitive_information == [
        "e-mail address: 3 found by patterns, still in the files"
    ]
    assert "rows.jsonl (7 rows, sha256 aaaa" in metadata.data_collection
    assert "A check found: the safe anchor does not match" in metadata.data_limitations
    assert "broken_json 1" in metadata.data_collection_missing_data
    assert metadata.data_annotation_protocol == [
        "Reviewers overruled the cut by hand: rows removed against the cut 1"
    ]
    for told in (metadata.data_preprocessing_protocol, metadata.data_biases, metadata.data_use_cases,
                 metadata.data_social_impact, metadata.machine_annotation_tools):  # fmt: skip
        assert told
    assert metadata.license == [
        "https://spdx.org/licenses/CC-BY-4.0.html",
        "The licence of some rows is not stated by their source.",
    ]


def test_its_rows_are_those_of_the_file(tmp_path, caplog):
    write_rows(tmp_path)
    read = dataset(tmp_path, FACTS, caplog)
    assert records(read) == [
        {"id": f"r{i}", "prompt": f"question {i}", "response": f"answer {i}"} for i in range(4)
    ]


def test_a_changed_file_is_not_read(tmp_path, caplog):
    write_rows(tmp_path)
    read = dataset(tmp_path, FACTS, caplog)
    path = tmp_path / "purified.jsonl"
    path.write_bytes(path.read_bytes().replace(b"answer 0", b"answer 9"))
    with pytest.raises(Exception, match=r"Download\(file-0\)") as failure:
        records(read)
    assert "not identical" in str(failure.value.__cause__)


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("file_type", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_rows_of_every_file_type_are_read(tmp_path, caplog, file_type, compression):
    if file_type == "parquet" and compression:
        pytest.skip("Parquet compresses by itself")
    content = COMPRESSIONS[compression](file_bytes(PLAIN, file_type))
    facts = facts_of(tmp_path, f"purified.{file_type}{compression}", content)
    read = dataset(tmp_path, facts, caplog)
    expected = [row | {"response": row["response"]} for row in PLAIN]
    assert records(read) == expected


@pytest.mark.parametrize("file_type", ["jsonl", "parquet"])
def test_turns_and_numbers_are_read_as_such(tmp_path, caplog, file_type):
    facts = facts_of(tmp_path, f"purified.{file_type}", file_bytes(CHAT, file_type))
    assert records(dataset(tmp_path, facts, caplog)) == CHAT


def test_what_the_library_could_not_read_is_named_and_the_rest_is_read(tmp_path, caplog):
    odd = [{"prompt": "a", "mixed": i if i else "x", "deep": [[1]]} for i in range(3)]
    facts = facts_of(tmp_path, "purified.jsonl", file_bytes(odd, "jsonl"))
    read = dataset(tmp_path, facts, caplog)
    assert records(read) == [{"prompt": "a"}] * 3
    assert "Not described as fields: mixed, deep." in read.metadata.record_sets[0].description


def test_files_that_no_croissant_reader_opens_are_described_by_their_hash(tmp_path, caplog):
    content = COMPRESSIONS[".zst"](file_bytes(PLAIN, "jsonl"))
    facts = facts_of(tmp_path, "purified.jsonl.zst", content)
    metadata = dataset(tmp_path, facts, caplog).metadata
    assert metadata.record_sets == []
    assert metadata.file_objects[0].sha256 == hashlib.sha256(content).hexdigest()


def test_several_files_have_a_record_set_each(tmp_path, caplog):
    one = facts_of(tmp_path, "purified/a b.jsonl", file_bytes(PLAIN, "jsonl")).files[0]
    two = facts_of(tmp_path, "purified/é.csv", file_bytes(PLAIN[:2], "csv")).files[0]
    read = dataset(tmp_path, changed(files=[one, two]), caplog)
    assert records(read, 0) == PLAIN
    assert records(read, 1) == PLAIN[:2]


def test_redaction_is_told(tmp_path, caplog):
    write_rows(tmp_path)
    metadata = dataset(tmp_path, redacted(), caplog).metadata
    assert metadata.personal_sensitive_information == [
        "e-mail address: 3 found by patterns, replaced in the files"
    ]
    assert "as the source wrote them" not in str(metadata.data_preprocessing_protocol)


def test_the_stated_hashes_can_be_read_back():
    assert file_hashes(croissant(FACTS)) == {"purified.jsonl": FACTS.files[0].sha256}


def test_rows_of_which_no_licence_is_stated_are_not_some_rows():
    unstated = FACTS.sources[0]._replace(licences={"not stated": 6})
    told = json.loads(croissant(changed(sources=[unstated, *FACTS.sources[1:]])))
    assert told["license"] == "No licence of the rows is stated by their sources."
