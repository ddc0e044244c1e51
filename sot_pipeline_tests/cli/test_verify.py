"""`sot verify`: exit codes, one document on stdout, sentences for people."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sot_pipeline.definitions import ASSETS, JOBS
from sot_pipeline.defs.documents import DocumentOptions, write_purified
from sot_pipeline_tests.small_home import SmallProject

SOT = str(Path(sys.executable).with_name("sot"))


def sot_verify(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SOT, "verify", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> SmallProject:
    project = SmallProject(tmp_path_factory.mktemp("project"))
    for asset in ASSETS:
        if asset.name in JOBS["purify"] - {"purification_report", "purification_changes"}:
            project.run_only(asset.name)
    return project


@pytest.fixture
def written(project, tmp_path) -> Path:
    write_purified(
        project.home, "small", tmp_path / "out", project.files["safe"], DocumentOptions()
    )
    return tmp_path / "out"


def test_a_folder_as_it_was_written_is_well(project, written):
    result = sot_verify(written, "--inputs", "--store", "--home", project.home.root)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert "3 inputs as they were" in result.stderr
    assert "all is well" in result.stderr


def test_a_difference_is_a_finding(written):
    (written / "purified.jsonl").write_text("{}\n")
    result = sot_verify(written)
    assert result.returncode == 3
    assert result.stdout.startswith("changed: purified.jsonl has 3 bytes, ")
    result = sot_verify(written, "--json")
    assert result.returncode == 3
    document = json.loads(result.stdout)
    assert not document["well"]
    assert [p["kind"] for p in document["problems"]] == ["changed"]


def test_what_cannot_be_verified_is_an_error(tmp_path):
    (tmp_path / "provenance.json").write_text("{")
    result = sot_verify(tmp_path)
    assert result.returncode == 1
    assert "is not JSON" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_schema_of_the_manifest_is_printed():
    result = sot_verify("--schema")
    assert result.returncode == 0
    assert json.loads(result.stdout)["properties"]["subject"]


def test_a_folder_has_to_be_named():
    assert sot_verify().returncode == 2
