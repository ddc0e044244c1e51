"""The manifest: what it says comes back, and what anybody else wrote is refused by a sentence."""

import hashlib
import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.publishing.provenance import (
    MANIFEST,
    MANIFEST_HASH,
    Statement,
    json_schema,
    read_provenance,
    write_provenance,
)
from sot_pipeline_tests.publishing.predicates import PREDICATE


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "rows.jsonl").write_text("{}\n")
    write_provenance(tmp_path, PREDICATE)
    return tmp_path


def document(folder) -> dict:
    return json.loads((folder / MANIFEST).read_text())


def test_it_is_an_in_toto_statement_with_slsa_provenance(folder):
    written = document(folder)
    assert written["_type"] == "https://in-toto.io/Statement/v1"
    assert written["predicateType"] == "https://slsa.dev/provenance/v1"
    assert written["subject"] == [
        {
            "name": "sub/rows.jsonl",
            "digest": {"sha256": hashlib.sha256(b"{}\n").hexdigest()},
            "annotations": {"bytes": 3},
        }
    ]
    assert set(written["predicate"]) == {"buildDefinition", "runDetails", "sot_data", "sot_export"}
    assert set(written["predicate"]["buildDefinition"]) == {
        "buildType", "externalParameters", "internalParameters", "resolvedDependencies",
    }  # fmt: skip
    assert set(written["predicate"]["runDetails"]) == {"builder", "metadata"}


def test_what_was_written_is_read_back(folder):
    statement = read_provenance((folder / MANIFEST).read_bytes())
    assert statement.predicate == PREDICATE
    assert statement.model_dump(mode="json", by_alias=True) == document(folder)


def test_its_hash_lies_beside_it_as_sha256sum_reads_it(folder):
    checked = subprocess.run(
        ["sha256sum", "-c", MANIFEST_HASH], cwd=folder, capture_output=True, check=False
    )
    assert checked.returncode == 0


def test_the_schema_names_every_part(folder):
    schema = json_schema()
    assert set(schema["properties"]) == set(document(folder))
    assert schema["$defs"]["Digest"]["properties"]["sha256"]["pattern"] == "^[0-9a-f]{64}$"


def test_fields_that_it_does_not_know_are_ignored(folder):
    more = document(folder) | {"further": 1}
    assert isinstance(read_provenance(json.dumps(more).encode()), Statement)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "no manifest of this project"),
        (b"{}", "no manifest of this project"),
        (b'{"_type": "https://in-toto.io/Statement/v0.1"}', "no manifest of this project"),
        (b'{"files": {"../x": "00"}}', "no manifest of this project"),
    ],
)
def test_what_is_no_manifest_is_refused_by_a_sentence(content, message):
    with pytest.raises(InputError, match=message) as refused:
        read_provenance(content)
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/passwd", "a/../../b", "a//b", "./a", "a/", "..", "", "a\0b", "sub/rows.jsonl",
     MANIFEST],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(folder, name):
    forged = document(folder)
    forged["subject"].append(forged["subject"][0] | {"name": name})
    with pytest.raises(InputError, match=r"forged or damaged|no manifest"):
        read_provenance(json.dumps(forged).encode())


def test_artefacts_with_names_that_are_paths_are_refused(folder):
    forged = document(folder)
    artefact = {
        "fingerprint": "f",
        "dataVersion": "v",
        "codeVersion": "c",
        "created": "",
        "inputs": {},
    }
    forged["predicate"]["buildDefinition"]["internalParameters"]["artefacts"] = {
        "../../etc/" + "0" * 32: artefact
    }
    with pytest.raises(InputError, match="no manifest of this project"):
        read_provenance(json.dumps(forged).encode())


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))  # fmt: skip
def test_no_json_raises_anything_but_an_input_error(value):
    with pytest.raises(InputError):
        read_provenance(json.dumps(value).encode())
