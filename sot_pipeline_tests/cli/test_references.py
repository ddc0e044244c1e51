"""`sot references`: nothing changes before a person accepts, and nothing is asked twice."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from sot_pipeline.cli import main
from sot_pipeline.cli.runs import run_job
from sot_pipeline.cli.task_files import prepare_task
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.store import Store
from sot_pipeline.texts.read import read_texts
from sot_pipeline_tests.small_project import row, write_jsonl, write_small_project

SOT = str(Path(sys.executable).with_name("sot"))
NEW_WORDS = ("helpful", "you", "are", "brief", "please", "hello", "there")


class Sot:
    """The command line in a folder, in this process."""

    def __init__(self, folder: Path, monkeypatch, capsys) -> None:
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.delenv("SOT_HOME", raising=False)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, "argv", ["sot", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = self.capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    def spawned(self, *arguments: str) -> str:
        """stdout of a command that runs the graph, which redirects its process's descriptors."""
        result = subprocess.run(
            [SOT, *arguments], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert result.returncode in (0, 3), result.stderr
        return result.stdout

    def references(self, *arguments: str, code: int = 0) -> dict:
        found, out, err = self("references", *arguments, "--json")
        assert found == code, err
        return json.loads(out)

    def propose(self, *more: str) -> dict:
        """Three proposals; the row without an answer makes it a finding."""
        arguments = ("small", "--from", "attacks.jsonl", "--count", "3", *more)
        return self.references("propose", *arguments, code=3)

    def harmful_texts(self) -> pl.DataFrame:
        stored = Store(self.folder / "data" / "store").current("small", "harmful_texts")
        assert stored is not None
        return stored.table()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A purified task, and attacks in words that neither reference knows."""
    folder = tmp_path_factory.mktemp("project")
    files = write_small_project(folder / "texts")
    home = Home(folder / "data")
    home.write_task(
        "small",
        TaskFile(
            custom=files["custom"],
            safe=files["safe"],
            harmful=files["harmful"],
            settings={"embedding": {"encoder": str(files["model"])}},
        ),
    )
    assert run_job(home, "small", "purify").error is None
    rng = random.Random(1)
    attacks = [row(rng, NEW_WORDS) for _ in range(30)]
    write_jsonl(folder / "attacks.jsonl", [*attacks, attacks[0], {"prompt": "hello there"}])
    return folder


@pytest.fixture
def sot(project, tmp_path, monkeypatch, capsys) -> Sot:
    """The command line in a copy of the project."""
    shutil.copytree(project, tmp_path / "copy")
    return Sot(tmp_path / "copy", monkeypatch, capsys)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_proposal_says_what_speaks_for_it_and_quotes_nothing(sot):
    code, out, err = sot("references", "propose", "small", "--from", "attacks.jsonl")
    assert code == 3, err
    assert "left out: 1 rows without an answer" in err
    texts = [text for each in rows_of(sot.folder / "attacks.jsonl") for text in each.values()]
    assert not any(text in out + err for text in texts)
    pending = Path(out.splitlines()[-1])
    for proposed in rows_of(pending):
        reason = proposed["proposal"]
        assert proposed["id"] in out
        assert reason["source"] == "attacks.jsonl"
        assert reason["cluster_size"] <= reason["num_within_reach"]
        # it would be removed exactly if it ranks below the task's cut
        assert reason["kept"] == (reason["rank"] <= reason["cut_rank"])
        assert reason["cut_rank"] == 48


def test_proposed_rows_are_rows_of_the_source_and_can_be_reference_rows(sot):
    found = sot.propose()
    texts = read_texts(Path(found["path"]))
    assert texts.rejected.height == 0
    assert texts.rows["source_id"].to_list() == [each["id"] for each in found["rows"]]
    offered = read_texts(sot.folder / "attacks.jsonl").rows
    assert set(texts.rows["messages"]) <= set(offered["messages"])
    assert texts.rows["messages"].n_unique() == 3, "the row that occurs twice is proposed once"
    assert 3 <= found["num_covered"] <= found["num_candidates"] <= found["num_far"]
    assert (found["num_rows"], found["num_without_answer"]) == (31, 1)


def test_proposing_changes_nothing_but_its_own_file(sot):
    def state() -> dict[str, bytes]:
        files = (sot.folder / "data").rglob("*")
        kept = (path for path in files if path.is_file() and "rows" not in path.parts)
        return {str(path): path.read_bytes() for path in kept}

    before = state()
    found = sot.propose()
    after = state()
    new = set(after) - set(before)
    assert {Path(path).name for path in new} == {Path(found["path"]).name, ".lock"}
    assert {path: after[path] for path in before} == before


def test_text_is_shown_on_request_only(sot):
    shown = sot.propose("--show-text")["rows"]
    assert all(each["messages"][0]["content"].startswith("what is") for each in shown)
    hidden = sot.references("propose", "small")["rows"]
    assert hidden
    assert not any("messages" in each for each in hidden)


def test_shown_text_cannot_steer_the_terminal(sot):
    rng = random.Random(2)
    hostile = [{**row(rng, NEW_WORDS), "prompt": f"\x1b[2J hello {i} \x9b"} for i in range(20)]
    write_jsonl(sot.folder / "hostile.jsonl", hostile)
    arguments = ("propose", "small", "--from", "hostile.jsonl", "--show-text")
    code, out, err = sot("references", *arguments)
    assert code == 0, err
    assert "[2J hello" in out
    assert not {"\x1b", "\x9b"} & set(out + err)


def test_without_a_file_the_tasks_removed_rows_are_looked_at(sot):
    found = sot.references("propose", "small")
    assert found["num_rows"] == 12
    assert found["rows"]
    for each in found["rows"]:
        assert each["source"] == "removed rows"
        assert not each["kept"]
        assert each["rank"] > each["cut_rank"]


def test_nobody_is_asked_twice(sot):
    first = sot.propose()
    first_ids = {each["id"] for each in first["rows"]}
    second = sot.propose()
    assert not first_ids & {each["id"] for each in second["rows"]}, "they wait for an answer"
    refused, *_ = sorted(first_ids)
    name = Path(first["path"]).stem
    sot.references("reject", "small", name, "--only", refused)
    sot.references("reject", "small", Path(second["path"]).name)
    assert sot.references("list", "small")["tasks"]["small"] == {
        "pending": {Path(first["path"]).name: 2}, "num_accepted": 0, "num_refused": 4,
    }  # fmt: skip
    everything = sot.references(
        "propose", "small", "--from", "attacks.jsonl", "--count", "99", code=3
    )
    answered = first_ids | {each["id"] for each in second["rows"]}
    assert not answered & {each["id"] for each in everything["rows"]}
    assert everything["num_candidates"] == first["num_candidates"] - len(answered)


def test_accepting_extends_the_harmful_reference_once_and_purifies_again(sot):
    found = sot.propose()
    pending = Path(found["path"])
    saved = pending.read_bytes()
    accepted = json.loads(sot.spawned("references", "accept", "small", "--json"))
    assert accepted["error"] is None
    assert accepted["num_accepted"] == 3
    assert not pending.exists()
    sources = Home(sot.folder / "data").read_task("small").harmful
    assert sources[1:] == (accepted["path"],)
    ids = {each["id"] for each in found["rows"]}
    reference = sot.harmful_texts()
    assert ids <= set(reference["source_id"])
    assert reference.height == 15 + 3
    again = sot.propose()
    assert again["num_far"] < found["num_far"], "they are near a reference now"
    assert not ids & {each["id"] for each in again["rows"]}
    # accepted again, as after a crash before the pending rows were dropped
    pending.write_bytes(saved)
    again = sot.references("accept", "small", pending.name, "--no-purify")
    assert again["num_accepted"] == 0
    assert not pending.exists()
    assert Home(sot.folder / "data").read_task("small").harmful == sources
    assert len(rows_of(Path(accepted["path"]))) == 3


def test_accepting_without_purifying_leaves_the_solve_to_the_next_run(sot):
    first, *_ = sot.propose()["rows"]
    arguments = ("--only", first["id"], "--no-purify")
    assert sot.references("accept", "small", *arguments)["num_accepted"] == 1
    assert sot.harmful_texts().height == 15
    sot.spawned("purify", "--task", "small")
    assert sot.harmful_texts().height == 15 + 1


def test_prompts_without_an_answer_become_references_where_the_setting_says_so(sot):
    home = Home(sot.folder / "data")
    task = home.read_task("small")
    settings = task.settings | {"texts": {"prompt_only_harmful": True}}
    home.write_task("small", task.model_copy(update={"settings": settings}))
    rng = random.Random(4)
    prompts = [{"prompt": row(rng, NEW_WORDS)["prompt"]} for _ in range(6)]
    write_jsonl(sot.folder / "prompts.jsonl", prompts)
    found = sot.references("propose", "small", "--from", "prompts.jsonl", "--count", "2")
    assert (found["num_rows"], found["num_without_answer"]) == (6, 0)
    assert sot.references("accept", "small", "--no-purify")["num_accepted"] == 2
    sot.spawned("purify", "--task", "small")
    reference = sot.harmful_texts()
    assert reference.filter(pl.col("response").is_null()).height == 2
    assert reference.height == 15 + 2


def test_another_harmful_reference_leaves_the_accepted_rows_in_place(sot):
    first, *_ = sot.propose()["rows"]
    accepted = sot.references("accept", "small", "--only", first["id"], "--no-purify")
    home = Home(sot.folder / "data")
    prepare_task(home, "small", [], [], ["attacks.jsonl"], {}, [])
    assert home.read_task("small").harmful == (
        str(sot.folder / "attacks.jsonl"), accepted["path"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["propose", "nobody"], "no task 'nobody'"),
        (["list", "nobody"], "no task 'nobody'"),
        (["accept", "small"], "there are: none"),
        (["reject", "small", "--only", "a", "--except", "b"], "give one of them"),
        (["propose", "small", "--from", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_mistakes_get_a_sentence_and_no_traceback(sot, arguments, message):
    code, out, err = sot("references", *arguments)
    assert (code, out) == (1, "")
    assert message in err


def test_a_task_that_was_not_purified_has_no_rows_to_look_at(sot):
    home = Home(sot.folder / "data")
    home.write_task("new", home.read_task("small"))
    code, _, err = sot("references", "propose", "new")
    assert code == 1
    assert "run `sot purify --task new` first" in err


def lint_document(sot: Sot, *arguments: str, code: int) -> dict:
    found, out, err = sot("references", "lint", *arguments, "--json")
    assert found == code, err
    return json.loads(out)


def with_a_row_on_both_sides(folder: Path) -> list[str]:
    """Arguments that name the project's references; safe.jsonl:21 is a row of the harmful one."""
    texts = folder / "texts"
    safe, harmful = texts / "safe.jsonl", texts / "harmful.jsonl"
    write_jsonl(safe, [*rows_of(safe), rows_of(harmful)[4]])
    model = str(folder / "texts" / "model")
    return ["--safe", str(safe), "--harmful", str(harmful), "--embedder", model]


def test_lint_reads_what_a_task_has_stored_and_embeds_nothing(sot):
    shutil.rmtree(sot.folder / "texts" / "model", ignore_errors=True)
    document = lint_document(sot, "--task", "small", code=3)
    assert document["num_rows"] == {"custom": 60, "safe": 20, "harmful": 15}
    few = [each for each in document["findings"] if each["name"] == "too_few_rows"]
    assert {each["text_set"] for each in few} == {"safe", "harmful"}


def test_lint_of_files_names_both_places_of_a_row_and_quotes_nothing(sot):
    arguments = with_a_row_on_both_sides(sot.folder)
    code, out, err = sot("references", "lint", *arguments, "--out", "rows.csv")
    assert code == 3, err
    assert "safe.jsonl:21" in out
    assert "harmful.jsonl:5" in out
    harmful = rows_of(sot.folder / "texts" / "harmful.jsonl")
    quoted = out + err + Path("rows.csv").read_text()
    assert not any(each["prompt"] in quoted for each in harmful)
    rows = pl.read_csv("rows.csv").filter(pl.col("finding") == "same_row_on_both_sides")
    assert rows.select("file", "line", "like_file", "like_line").rows() == [
        ("safe.jsonl", 21, "harmful.jsonl", 5)
    ]


def test_lint_counts_lines_that_could_not_be_read(sot):
    arguments = with_a_row_on_both_sides(sot.folder)
    with (sot.folder / "texts" / "harmful.jsonl").open("a") as file:
        file.write("no json\n")
    document = lint_document(sot, *arguments, code=3)
    (bad,) = (each for each in document["findings"] if each["name"] == "unreadable_rows")
    assert (bad["num_rows"], bad["rows"][0]["line"]) == (1, 16)


def test_lint_of_a_file_without_rows_names_it(sot):
    arguments = with_a_row_on_both_sides(sot.folder)
    (sot.folder / "texts" / "safe.jsonl").write_text("{}\n")
    code, _, err = sot("references", "lint", *arguments)
    assert code == 1
    assert "safe.jsonl:1" in err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--safe", "a"),
        ("--task", "small", "--safe", "a"),
        ("--task", "small", "--out", "x.txt"),
    ],
)
def test_lint_wants_a_task_or_both_references(sot, arguments):
    code, _, _ = sot("references", "lint", *arguments)
    assert code == 2
