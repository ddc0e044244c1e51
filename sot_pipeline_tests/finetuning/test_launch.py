"""Training in processes of its own: the same weights, whatever is killed, and nobody left behind."""

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest
import torch

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning import launch
from sot_pipeline.finetuning.defences.defence import Defence
from sot_pipeline.finetuning.defences.registry import DEFENCES
from sot_pipeline.finetuning.job import DefenceChoice, read_job, train
from sot_pipeline.finetuning.launch import TrainingFailed, run_apart
from sot_pipeline_tests.finetuning.jobs import adapter_of, make_job
from sot_pipeline_tests.finetuning.test_train import assert_same, conversations
from sot_pipeline_tests.tiny_models import save_tiny_model

ROWS = conversations(9)
WEIGHTS = np.linspace(0.5, 2, 9)
LONG = {"num_steps": 150, "batch_size": 4, "micro_batch_size": 2}
ACCELERATE = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2",
    "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


def trainers(launched: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that train, without the launcher above them."""
    return [p for p in launched if "--nproc-per-node=2" not in p.cmdline()]


def gone(processes: list[psutil.Process], seconds: float = 20) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


class KillAt:
    """Kills processes of a run once it reports a step."""

    def __init__(self, step: int, choose=trainers) -> None:
        self.step, self.choose = step, choose
        self.launched: list[psutil.Process] = []

    def __call__(self, report) -> None:
        if report.step == self.step:
            self.launched = psutil.Process().children(recursive=True)
            self.choose(self.launched)[-1].send_signal(signal.SIGKILL)


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_a_training_killed_at_a_random_step_goes_on_to_the_same_weights(base, tmp_path):
    whole = make_job(base, tmp_path / "whole", ROWS, WEIGHTS, recipe=LONG)
    undisturbed = train(whole)
    job = make_job(base, tmp_path / "killed", ROWS, WEIGHTS, recipe=LONG,
                   checkpoint_dir=tmp_path / "checkpoints", checkpoint_every=7)  # fmt: skip
    kill = KillAt(random.Random(20).randint(10, 100))
    with pytest.raises(TrainingFailed, match=r"killed by signal 9 \(SIGKILL\).*memory"):
        run_apart(job, tmp_path / "killed", on_step=kill)
    assert gone(kill.launched)
    steps = []
    resumed = run_apart(job, tmp_path / "killed", on_step=lambda report: steps.append(report.step))
    assert resumed.num_resumed >= 7 * (kill.step // 7)
    assert steps == list(range(resumed.num_resumed + 1, 151))
    assert resumed.loss_trace == undisturbed.loss_trace
    assert same(adapter_of(job), adapter_of(whole))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base": "/nowhere/at/all"}, "There is no model directory /nowhere/at/all"),
        ({"recipe": {"ranks": 4}}, "a recipe has no ranks; it has .*rank"),
        ({"recipe": {"num_steps": 3, "num_epochs": 1}}, "either num_epochs or num_steps"),
        ({"rows": Path("absent.parquet")}, "cannot read the rows of a training job"),
        ({"safety": Path("absent.json")}, "cannot read the safety texts"),
    ],
)
def test_a_job_that_cannot_run_says_why(base, tmp_path, fields, message):
    job = make_job(base, tmp_path, ROWS)
    with pytest.raises(InputError, match=message):
        train(job.model_copy(update=fields))


def test_what_the_process_refuses_is_raised_where_it_was_started(base, tmp_path):
    job = make_job(base, tmp_path, ROWS).model_copy(update={"rows": tmp_path / "absent.jsonl"})
    with pytest.raises(InputError, match="cannot read the rows"):
        run_apart(job, tmp_path)


def test_a_trainer_that_dies_before_it_trains_is_a_failure_with_its_last_words(
    base, tmp_path, monkeypatch
):
    dying = [sys.executable, "-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(7)"]
    monkeypatch.setattr(launch, "launcher", lambda num_processes: dying)
    job = make_job(base, tmp_path, ROWS)
    job.result.write_text(json.dumps({"result": {}}))  # of an earlier attempt
    with pytest.raises(TrainingFailed, match=r"(?s)exit status 7.*out of luck"):
        run_apart(job, tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"base": "b"}', '{"base": "b", "rows": "r", "lr": 1}']
)
def test_a_job_file_is_read_strictly(tmp_path, content):
    path = tmp_path / "job.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"job\.json is no training job"):
        read_job(path)


def test_a_job_file_may_be_moved_with_what_it_names(base, tmp_path):
    job = make_job(base, tmp_path / "here", ROWS)
    named = {"base": "model", "rows": "rows.parquet", "output_dir": "adapter",
             "result": "result.json", "recipe": job.recipe}  # fmt: skip
    (tmp_path / "here" / "job.json").write_text(json.dumps(named))
    shutil.copytree(base, tmp_path / "here" / "model")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = read_job(tmp_path / "there" / "job.json")
    train(moved)
    assert (tmp_path / "there" / "adapter" / "adapter_model.safetensors").exists()
    assert read_job(tmp_path / "there" / "job.json").seen_from(tmp_path) == moved


def test_rows_may_be_json_lines_with_or_without_weights(base, tmp_path):
    parquet = make_job(base, tmp_path / "a", ROWS, WEIGHTS)
    lines = tmp_path / "rows.jsonl"
    pairs = zip(ROWS, WEIGHTS, strict=True)
    lines.write_text("".join(json.dumps({"messages": r, "weight": w}) + "\n" for r, w in pairs))
    with_weights = make_job(base, tmp_path / "b", ROWS).model_copy(update={"rows": lines})
    assert train(parquet).loss_trace == train(with_weights).loss_trace
    lines.write_text("".join(json.dumps({"messages": r}) + "\n" for r in ROWS))
    ones = make_job(base, tmp_path / "c", ROWS)
    assert train(with_weights).loss_trace == train(ones).loss_trace


class Telling(Defence):
    """Tells its option in the log, and looks at what it may learn from."""

    def __init__(self, share: float) -> None:
        self.share = share

    def on_gradients(self, step):
        assert len(self.run.safety.demonstrations.token_ids) == 2
        return {"share": self.share}


def test_a_job_names_its_defence_and_what_that_learns_from(base, tmp_path, monkeypatch):
    registry = ModuleType("registry")
    chosen = {}
    registry.make_defence = lambda name, options: chosen.setdefault(name, Telling(**options))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sot_pipeline.finetuning.defences.registry", registry)
    texts = tmp_path / "safety.json"
    texts.write_text(json.dumps({"demonstrations": ROWS[:2], "harmless_prompts": [ROWS[2][:1]]}))
    defence = DefenceChoice(name="telling", options={"share": 0.5})
    result = train(make_job(base, tmp_path, ROWS, defence=defence, safety=texts))
    assert list(chosen) == ["telling"]
    assert [values["share"] for values in result.trace] == [0.5] * 4


# With several processes


def in_two_processes(job, folder, **options):
    return run_apart(job, folder, num_processes=2, **options)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["torchrun", "accelerate launch"])
@pytest.mark.parametrize(
    "recipe",
    [
        {"micro_batch_size": 2, "batch_size": 5},  # parts of unequal number
        {"packing": True, "batch_size": 5},
        {"normalisation": "token_mean", "batch_size": 5, "micro_batch_size": 2},
    ],
    ids=["padded", "packed", "token_mean"],
)
def test_two_processes_give_what_one_gives(base, tmp_path, monkeypatch, command, recipe):
    """Parts of unequal number and weight: the loss is that of the whole global batch."""
    if command == "accelerate launch":
        monkeypatch.setattr(launch, "launcher", lambda num_processes: ACCELERATE)
    one = make_job(base, tmp_path / "one", ROWS, WEIGHTS, recipe=recipe)
    two = make_job(base, tmp_path / "two", ROWS, WEIGHTS, recipe=recipe)
    alone, together = train(one), in_two_processes(two, tmp_path / "two")
    assert together.loss_trace == pytest.approx(alone.loss_trace, rel=1e-4)
    assert_same(adapter_of(two), adapter_of(one))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DEFENCES if name != "none"])
def test_two_processes_are_defended_as_one_is(base, tmp_path, name):
    texts = tmp_path / "safety.json"
    harmless = [row[:1] for row in ROWS[4:]]
    texts.write_text(json.dumps({"demonstrations": ROWS[:4], "harmless_prompts": harmless}))
    fields = {"recipe": {"micro_batch_size": 2, "batch_size": 5, "learning_rate": 1e-3},
              "defence": DefenceChoice(name=name), "safety": texts}  # fmt: skip
    one = make_job(base, tmp_path / "one", ROWS, WEIGHTS, **fields)
    two = make_job(base, tmp_path / "two", ROWS, WEIGHTS, **fields)
    alone, together = train(one), in_two_processes(two, tmp_path / "two")
    assert together.loss_trace == pytest.approx(alone.loss_trace, rel=1e-4)
    assert_same(adapter_of(two), adapter_of(one))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["a trainer", "the first trainer", "the launcher"])
def test_whoever_is_killed_two_processes_end_and_go_on_exactly(base, tmp_path, victim):
    choose = {
        "a trainer": lambda launched: trainers(launched)[1:2],
        "the first trainer": lambda launched: trainers(launched)[:1],
        "the launcher": lambda launched: [p for p in launched if p not in trainers(launched)],
    }[victim]
    whole = make_job(base, tmp_path / "whole", ROWS, WEIGHTS, recipe=LONG)
    in_two_processes(whole, tmp_path / "whole")
    job = make_job(base, tmp_path / "killed", ROWS, WEIGHTS, recipe=LONG,
                   checkpoint_dir=tmp_path / "checkpoints", checkpoint_every=5)  # fmt: skip
    kill = KillAt(50, choose)
    with pytest.raises(TrainingFailed, match="SIGKILL"):
        in_two_processes(job, tmp_path / "killed", on_step=kill)
    assert len(kill.launched) == 3
    assert gone(kill.launched)
    resumed = in_two_processes(job, tmp_path / "killed")
    assert resumed.num_resumed >= 45
    assert same(adapter_of(job), adapter_of(whole))


WATCHING = """
import sys
from pathlib import Path
from sot_pipeline.finetuning.job import read_job
from sot_pipeline.finetuning.launch import run_apart
job = read_job(Path(sys.argv[1]))
say = lambda report: print(report.step, flush=True)
run_apart(job, Path(sys.argv[2]), num_processes=int(sys.argv[3]), on_step=say)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("num_processes", [1, 2])
def test_nobody_outlives_the_one_that_watches(base, tmp_path, num_processes, how):
    endless = {**LONG, "num_steps": 1_000_000}
    job = make_job(base, tmp_path, ROWS, recipe=endless)
    path = tmp_path / "watched.json"
    path.write_text(job.model_dump_json())
    command = [sys.executable, "-c", WATCHING, str(path), str(tmp_path / "own"), str(num_processes)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "1\n"
        launched = psutil.Process(watching.pid).children(recursive=True)
        assert len(launched) == (1 if num_processes == 1 else 3)
        watching.send_signal(how)
        assert gone(launched)
        watching.communicate(timeout=20)


@pytest.mark.slow
def test_many_kills_at_random_moments_cost_no_exactness(base, tmp_path):
    rng = random.Random(0)
    whole = make_job(base, tmp_path / "whole", ROWS, WEIGHTS, recipe=LONG)
    train(whole)
    job = make_job(base, tmp_path / "killed", ROWS, WEIGHTS, recipe=LONG,
                   checkpoint_dir=tmp_path / "checkpoints", checkpoint_seconds=0.05)  # fmt: skip
    num_kills, reached = 0, 0
    while num_kills < 6:
        kill = KillAt(reached + rng.randint(1, 20))
        with pytest.raises(TrainingFailed):
            run_apart(job, tmp_path / "killed", on_step=kill)
        num_kills, reached = num_kills + 1, kill.step
    resumed = run_apart(job, tmp_path / "killed")
    assert resumed.num_resumed > 0
    assert same(adapter_of(job), adapter_of(whole))


@pytest.mark.slow
def test_fewer_rows_than_processes_is_an_error_not_a_deadlock(base, tmp_path):
    job = make_job(base, tmp_path, ROWS[:1])
    with pytest.raises(InputError, match="fewer than the 2 processes"):
        in_two_processes(job, tmp_path)
