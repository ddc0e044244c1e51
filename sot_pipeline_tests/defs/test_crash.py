"""A process may die at any moment: before and after every step that a disk can see."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sot_pipeline_tests.crash import kill_again_and_again

# Forks a process for each moment at which one run may die, so that nothing is imported twice.
# The killed run moves every version of a small graph on; the next run has to end as if nothing
# had happened. Prints how many moments there were and what was wrong.
EVERY_MOMENT = """
import itertools, json, os, shutil, signal, sys, traceback
from pathlib import Path

import duckdb

from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.store import Store
from sot_pipeline_tests.crash import artefacts, violations_after_kill
from sot_pipeline_tests.defs.test_retention import ASSETS, change_numbers, make

WATCHED = ("fsync", "rename", "replace", "unlink", "mkdir", "rmdir")
root = Path(sys.argv[1])


def in_child(function):
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepare():
    home.write_task("small", TaskFile(custom=text, safe=text, harmful=text))
    text.write_text("1 2")
    make(home, *ASSETS, task="small")


def killed_at(moment):
    steps = itertools.count()

    def watched(call):
        def step(*arguments, **options):
            if next(steps) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **options)
            if next(steps) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return step

    def run():
        for name in WATCHED:
            setattr(os, name, watched(getattr(os, name)))
        text.write_text("1 2 3")
        make(home, *ASSETS, task="small")

    return run


def check():
    store = Store(home.store)
    before = set(artefacts(store))
    known_before = {tuple(name) for name in json.loads(known.read_text())}
    problems = list(violations_after_kill(store, known_before))
    store.sweep()
    text.write_text("1 2 3")
    make(home, *ASSETS, task="small")
    problems += violations_after_kill(store, before)
    problems += [f"left: {path}" for path in (store.root / "building").iterdir()]
    problems += [f"left: {path}" for path in store.root.glob("pipeline.*.tmp*")]
    assert store.current("small", "numbers").table()["value"].to_list() == [1, 2, 3]
    assert [len(store.history("small", a.name)) for a in ASSETS] == [2] * len(ASSETS)
    had = store.current("small", "change").document["had"]
    assert had == store.history("small", "change")[0].fingerprint
    with duckdb.connect(str(store.root / "pipeline.duckdb"), read_only=True) as connection:
        assert connection.sql("select count(*) from scaled").fetchall() == [(3,)]
    if problems:
        print(*problems, sep="\\n", file=sys.stderr)
        raise AssertionError("violated")


whole = root / "whole"
home, text, known = Home(whole), whole / "numbers.txt", root / "known.json"
whole.mkdir()
assert in_child(prepare) == 0
known.write_text(json.dumps(sorted(artefacts(Store(home.store)))))
wrong, moment = [], 0
for moment in itertools.count(int(sys.argv[2]), int(sys.argv[3])):
    copy = root / f"at{moment}"
    shutil.copytree(whole, copy)
    home, text = Home(copy), copy / "numbers.txt"
    for task in copy.glob("tasks/*"):
        task.write_text(task.read_text().replace(str(whole), str(copy)))
    ended = in_child(killed_at(moment))
    if ended not in (0, -9) or in_child(check) != 0:
        wrong.append(moment)
    if ended == 0:
        break
    shutil.rmtree(copy)
print(json.dumps({"moments": moment, "wrong": wrong}))
"""


@pytest.mark.parametrize(
    ("start", "stride"), [(3, 29), pytest.param(0, 1, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_wherever_a_run_dies_the_next_ends_as_if_nothing_had_happened(tmp_path, start, stride):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(EVERY_MOMENT), str(tmp_path), str(start), str(stride)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert outcome["wrong"] == [], result.stderr
    assert outcome["moments"] > 100, "the run is watched"


def test_a_killed_purification_ends_as_an_undisturbed_one(tmp_path, capsys):
    findings = kill_again_and_again(tmp_path, num_kills=2, seed=1, job="purify", num_rows=60)
    assert findings.violations == [], capsys.readouterr().out
    assert len(findings.kills) == 2
    assert findings.num_finished >= 1


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path, capsys):
    findings = kill_again_and_again(tmp_path, num_kills=20, seed=0, job="purify_and_finetune")
    assert findings.violations == [], capsys.readouterr().out
    assert len(findings.kills) == 20
