"""`sot gc`, and what Ctrl-C leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sot_pipeline_tests.small_project import write_small_project

SOT = str(Path(sys.executable).with_name("sot"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
# A background job of a script begins with SIGINT ignored. (Not `preexec_fn`: it forks this process,
# and JAX warns when it is loaded here.)
AS_IN_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def sot(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SOT, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False,
        env=ENVIRONMENT,
    )  # fmt: skip


def sot_json(*arguments: str | Path, cwd: Path) -> dict:
    result = sot(*arguments, "--json", cwd=cwd)
    assert result.returncode in (0, 3), result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return write_small_project(tmp_path_factory.mktemp("texts"))


def purify(files: dict[str, Path]) -> list[str | Path]:
    return ["purify", files["custom"], "--safe", files["safe"], "--harmful", files["harmful"],
            "--embedder", files["model"], "--task", "small"]  # fmt: skip


def test_old_versions_go_and_the_next_purification_is_all_hits(files, tmp_path):
    sot_json(*purify(files), cwd=tmp_path)
    sot_json(*purify(files), "--keep", "0.5", cwd=tmp_path)
    planned = sot_json("gc", "--keep-versions", "1", "--dry-run", cwd=tmp_path)
    assert planned["dry_run"]
    assets = {removed["path"].split("/")[0] for removed in planned["removed"]}
    assert assets == {
        "selected_samples", "removed_samples", "explanations", "purified_export",
        "purification_report",
    }  # fmt: skip
    assert planned["bytes_freed"] == sum(removed["num_bytes"] for removed in planned["removed"])
    assert planned["caches_kept"]["rows"] > 0
    said = sot("gc", "--keep-versions", "1", cwd=tmp_path)
    assert said.returncode == 0
    assert "selected_samples" in said.stdout
    assert "MB freed; kept" in said.stderr
    store = tmp_path / "data" / "store"
    assert not any((store / removed["path"]).exists() for removed in planned["removed"])
    again = sot_json(*purify(files), "--keep", "0.5", cwd=tmp_path)
    assert {asset["cache"] for asset in again["assets"]} == {"hit"}
    assert sot_json("gc", "--keep-versions", "1", cwd=tmp_path)["removed"] == []


def test_collecting_where_nothing_was_purified_makes_nothing(tmp_path):
    assert sot_json("gc", cwd=tmp_path)["removed"] == []
    assert list(tmp_path.iterdir()) == []


def test_a_negative_number_of_versions_is_wrong_usage(tmp_path):
    assert sot("gc", "--keep-versions", "-1", cwd=tmp_path).returncode == 2


def test_ctrl_c_ends_with_a_sentence_and_the_same_command_goes_on(files, tmp_path):
    with (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", AS_IN_A_TERMINAL, SOT, *map(str, purify(files))],
            cwd=tmp_path, text=True, env=ENVIRONMENT,
            stdout=subprocess.PIPE, stderr=stderr, start_new_session=True,
        )  # fmt: skip
    while "custom_texts" not in (tmp_path / "stderr").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    output, _ = process.communicate(timeout=120)
    errors = (tmp_path / "stderr").read_text()
    assert process.returncode == 130, errors
    assert output == ""
    assert errors.splitlines()[-1] == (
        "stopped; what was finished is kept, the same command goes on from there"
    )
    assert "Traceback" not in errors
    done = sot_json(*purify(files), cwd=tmp_path)
    cache = {asset["asset"]: asset["cache"] for asset in done["assets"]}
    assert cache["custom_texts"] == "hit"
    assert list((tmp_path / "data" / "store" / "building").iterdir()) == []
