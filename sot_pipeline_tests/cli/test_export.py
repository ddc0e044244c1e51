"""`sot export`: one document or paths on stdout, exit codes, what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sot_pipeline_tests.small_home import SmallProject

SOT = str(Path(sys.executable).with_name("sot"))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> SmallProject:
    project = SmallProject(tmp_path_factory.mktemp("project"))
    project.run(job="finetune")
    return project


def sot_export(project: SmallProject, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SOT, "export", *map(str, arguments), "--home", str(project.home.root)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_json_document_tells_what_was_written(project, tmp_path):
    out = tmp_path / "out"
    result = sot_export(
        project, "small", "--out", out, "--merge", "--trainer", "axolotl", "--trainer", "trl",
        "--resample", "--json",
    )  # fmt: skip
    assert result.returncode == 3, result.stderr  # a finding: the adapter has no scores
    document = json.loads(result.stdout)
    assert document["out"] == str(out)
    assert "no scores" in document["findings"][0]
    assert set(document["trainers"]) == {"axolotl", "trl"}
    assert document["merged"]["dtype"] == "float32"
    assert document["serve"].startswith("vllm serve ")
    assert "--max-lora-rank 16" in document["serve"]
    written = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert written == {*document["files"], "provenance.json", "provenance.json.sha256"}
    assert document["data"]["rows_kept"] == 48


def test_people_get_the_folder_on_stdout_and_the_rest_on_stderr(project, tmp_path):
    result = sot_export(project, "small", "--out", tmp_path / "out", "--trainer", "llamafactory")
    assert result.returncode == 3
    assert result.stdout == f"{tmp_path / 'out'}\n"
    assert "these trainers take no weights" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["other", "--out", "new"], 1, "no task 'other'"),
        (["small", "--out", "occupied"], 1, "not empty and no earlier export"),
        (["small", "--out", "new", "--trainer", "unsloth"], 2, "unsloth"),
        (["small", "--out", "new", "--resample"], 2, "need a --trainer"),
        (
            [
                "small",
                "--out",
                "new",
                "--trainer",
                "trl",
                "--no-resample",
                "--resample-factor",
                "2",
            ],
            2,
            "exclude each other",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused(project, tmp_path, arguments, code, message):
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "work.txt").write_text("work")
    arguments = [str(tmp_path / a) if a in ("new", "occupied") else a for a in arguments]
    result = sot_export(project, *arguments)
    assert result.returncode == code, result.stderr
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""
    assert not (tmp_path / "new").exists()
