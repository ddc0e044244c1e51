"""`sot review`: from a sheet to a selection that honours it."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sot_pipeline.cli import main
from sot_pipeline.defs.store import Store
from sot_pipeline_tests.small_home import SmallProject

SOT = str(Path(sys.executable).with_name("sot"))


class Sot:
    """The command line on a home, in this process."""

    def __init__(self, folder: Path, monkeypatch, capsys) -> None:
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.delenv("SOT_HOME", raising=False)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, "argv", ["sot", "review", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        printed = self.capsys.readouterr()
        return code, printed.out, printed.err

    def export(self, name: str = "borderline.csv") -> list[dict[str, str]]:
        code, _, err = self("export", "small", "--out", name, "--rows", "6")
        assert code == 0, err
        with (self.folder / name).open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def fill(self, rows: list[dict[str, str]], decisions: list[str]) -> None:
        """Save the sheet as Excel does in countries with decimal commas."""
        with (self.folder / "filled.csv").open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
            writer.writeheader()
            for row, decision in zip(rows, decisions, strict=True):
                writer.writerow(row | {"decision": decision})


@pytest.fixture(scope="module")
def purified(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    SmallProject(folder).run()
    return folder


@pytest.fixture
def sot(purified, tmp_path, monkeypatch, capsys) -> Sot:
    """The command line in a copy of the project."""
    shutil.copytree(purified, tmp_path / "copy")
    return Sot(tmp_path / "copy", monkeypatch, capsys)


def test_a_filled_in_sheet_moves_rows_and_the_list_shows_who_decided(sot):
    rows = sot.export()
    assert [row["kept"] for row in rows] == ["yes", "no"] * 3
    sot.fill(rows, ["drop", "keep", "", "unsure", "", ""])
    done = subprocess.run(
        [SOT, "review", "import", "small", "filled.csv", "--reviewer", "Ann", "--json"],
        cwd=sot.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["num_answers"] == document["num_new"] == 3
    assert document["num_moved"] == 2
    assert document["review"]["num_honoured"] == 2
    selected = Store(sot.folder / "data" / "store").current("small", "selected_samples")
    assert selected is not None
    kept = set(selected.table()["sample_id"])
    assert rows[1]["sample_id"] in kept
    assert rows[0]["sample_id"] not in kept
    _, out, _ = sot("list", "small", "--json")
    listed = json.loads(out)["decisions"]
    assert [(said["decision"], said["reviewer"], said["num_rows"]) for said in listed] == [
        ("drop", "Ann", 1), ("keep", "Ann", 1), ("unsure", "Ann", 1),
    ]  # fmt: skip
    again = {row["sample_id"]: row["decision"] for row in sot.export("again.csv")}
    assert again[rows[1]["sample_id"]] == "keep"  # though it stays now


def test_an_import_says_what_would_change_and_runs_nothing_on_request(sot):
    rows = sot.export()
    sot.fill(rows, ["drop", "keep", "", "", "", ""])
    code, out, err = sot("import", "small", "filled.csv", "--no-run")
    assert code == 0
    assert "2 decisions in filled.csv, 2 of them new; 2 rows change sides" in err
    assert "comes back" in out
    assert "goes" in out
    code, _, err = sot("import", "small", "filled.csv", "--no-run")
    assert "0 of them new; 0 rows change sides" in err


def test_an_import_that_cannot_be_used_exits_with_one_and_leaves_no_file(sot):
    sot.fill(sot.export(), ["drop", "keeep", "", "", "", ""])
    code, _, err = sot("import", "small", "filled.csv")
    assert code == 1
    assert "filled.csv:3: decision 'keeep'" in err
    assert "did you mean 'keep'?" in err
    assert not (sot.folder / "data" / "reviews" / "small.jsonl").exists()


def test_a_decision_is_withdrawn_by_its_sample_id(sot):
    rows = sot.export()
    sot.fill(rows, ["drop", "", "", "", "", ""])
    sot("import", "small", "filled.csv", "--no-run")
    code, out, err = sot("withdraw", "small", rows[0]["sample_id"], "--no-run", "--json")
    assert (code, json.loads(out)["num_withdrawn"]) == (0, 1), err
    _, out, _ = sot("list", "small", "--json")
    document = json.loads(out)
    assert document["decisions"] == []
    assert [said["decision"] for said in document["log"]] == ["drop", "withdraw"]


def test_a_decision_about_a_row_that_is_gone_is_kept_with_a_warning(sot):
    log = sot.folder / "data" / "reviews" / "small.jsonl"
    log.parent.mkdir()
    log.write_text('{"sample_id": "ffff-1", "decision": "drop", "reviewer": "A\\u001bnn"}\n')
    code, out, err = sot("list", "small")
    assert code == 0
    assert "gone" in out
    assert "\x1b" not in out
    assert "warning: 1 decisions are about rows that are not in the custom set" in err
    assert "ffff-1" in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("export", "none", "--out", "s.csv"), "no task 'none'"),
        (("export", "small", "--out", "s.xlsx"), "expected a name ending in .csv or .jsonl"),
        (("import", "small", "none.csv"), "No such file"),
        (("list", "none"), "no task 'none'"),
        (("withdraw", "small", "ffff-1"), "no decision about ffff-1 is in force"),
    ],
)
def test_mistakes_are_said_in_one_line(sot, arguments, found):
    code, _, err = sot(*arguments)
    assert code == 1
    assert err.startswith("error: ")
    assert found in err
