"""Kill a run again and again: nothing may be lost, torn, or done twice.

    python -m sot_pipeline_tests.crash --kills 20 [--seed S] [--home DIR] [--job NAME]

A whole run on a small project is a process of its own that is killed (`kill -9`, with all its
children) at random moments and started again, until it has been killed often enough; a run that
ends before its kill is compared with an undisturbed one, and the next begins in a fresh folder.
Prints what happened as a table; exits 1 if anything was violated.
"""

import argparse
import contextlib
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from sot_pipeline.defs.home import EvaluationFiles, Home, TaskFile
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline.embedding.row_cache import SHARD_ROWS
from sot_pipeline.progress import Listener, listening
from sot_pipeline_tests.small_project import write_small_project

TASK = "small"
ENDED = "ended"
NUM_ROWS = 700  # two shards of the row cache
BESIDE = {"current", "history", "building", "in_use", "scratch", "rows"}


@dataclass
class Attempt:
    """One start of the run."""

    seconds: float  # of work, until its end or its kill
    killed: bool
    asset: str  # the last one begun, empty if none
    begun: float  # when the process started, seconds since the epoch
    error: str = ""


@dataclass
class Findings:
    """What was checked on the way."""

    violations: list[str] = field(default_factory=list)
    kills: list[Attempt] = field(default_factory=list)
    num_finished: int = 0
    num_embedded_twice: int = 0
    num_swept: int = 0
    num_artefacts_checked: int = 0


def write_home(folder: Path, files: dict[str, Path]) -> Home:
    home = Home(folder)
    home.write_task(
        TASK,
        TaskFile(
            custom=files["custom"],
            safe=files["safe"],
            harmful=files["harmful"],
            evaluation=EvaluationFiles(harmful=files["eval_harmful"], task=files["eval_task"]),
            settings={
                "embedding": {"encoder": str(files["model"])},
                "base_model": {"name": str(files["model"])},
                "finetuning": {"num_epochs": None, "num_steps": 60, "batch_size": 8},
                "evaluation": {"max_new_tokens": 4},
                "comparison": {"methods": ["sft", "random"]},
            },
        ),
    )
    return home


# The child: one run that writes down what it begins and which rows it embeds


class _Begun(Listener):
    def __init__(self, path: Path) -> None:
        self._path = path

    def started(self, asset: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{asset}\n")


def run_child(root: Path, job: str) -> int:
    import sot_pipeline.definitions  # noqa: F401, so that kills fall into work
    from sot_pipeline.cli.runs import run_job
    from sot_pipeline.embedding import causal
    from sot_pipeline.embedding.row_cache import row_key

    embed_batch = causal.CausalEncoder.embed_batch

    def noted(self, token_ids, **options):
        vectors = embed_batch(self, token_ids, **options)
        with (root / "embedded.log").open("a") as file:
            file.write("".join(f"{row_key(ids)}\n" for ids in token_ids))
        return vectors

    causal.CausalEncoder.embed_batch = noted  # type: ignore[method-assign]
    events = root / "begun.log"
    events.write_text("ready\n")
    with listening(_Begun(events)):
        outcome = run_job(Home(root), TASK, job)
    with events.open("a") as file:
        file.write(f"{ENDED}\n")  # a kill while the interpreter shuts down interrupts nothing
    if outcome.error is not None:
        print(outcome.error, file=sys.stderr)
    return 0 if outcome.success else 1


def attempt(root: Path, job: str, seconds: float | None) -> Attempt:
    """Start the run, and kill it after some seconds of work (None: never)."""
    events = root / "begun.log"
    events.unlink(missing_ok=True)
    begun = time.time()
    command = [sys.executable, "-m", __spec__.name, "--child", str(root), "--job", job]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, env=environment,
            start_new_session=True,
        )  # fmt: skip
        while not events.exists() and child.poll() is None:
            time.sleep(0.01)
        start = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=seconds)
        worked = time.monotonic() - start
        killed = child.returncode is None
        _kill_group(child.pid)
        child.wait()
        errors.seek(0)
        said = errors.read()[-2_000:] if not killed and child.returncode != 0 else ""
    names = events.read_text().split() if events.exists() else []
    killed = killed and ENDED not in names
    return Attempt(worked, killed, names[-1] if len(names) > 1 else "", begun, said)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:  # all of it has ended
        return


# What must hold at any moment


def artefacts(store: Store) -> dict[tuple[str, str], Stored]:
    """Every directory that looks like an artefact, read without the store's own care."""
    return {
        (path.parent.parent.name, path.parent.name): Stored(path.parent.parent.name, path.parent)
        for path in store.root.glob("*/*/manifest.json")
        if path.parent.parent.name not in BESIDE
    }


def violations_after_kill(store: Store, before: set[tuple[str, str]]) -> Iterator[str]:
    found = artefacts(store)
    for stored in found.values():
        yield from stored.damage()
    for asset, fingerprint in before - found.keys():
        yield f"lost: {asset}/{fingerprint}"
    for pointer in store.root.glob(f"current/{TASK}/*"):
        if "." not in pointer.name and store.current(TASK, pointer.name) is None:
            yield f"{pointer.name} points at nothing"
    if (store.root / "pipeline.duckdb").exists():
        yield from _catalogue_violations(store)


def _catalogue_violations(store: Store) -> Iterator[str]:
    try:
        with duckdb.connect(str(store.root / "pipeline.duckdb"), read_only=True) as connection:
            views = [name for (name,) in connection.sql("show tables").fetchall()]
            counts = {
                name: connection.sql(f"select count(*) from {name}").fetchall()[0][0]
                for name in views
            }
    except duckdb.Error as error:
        yield f"the catalogue cannot be read: {error}"
        return
    if not store.catalogue_mark.exists():
        current = store.current_of(TASK)
        rows = {n: s.manifest["rows"] for n, s in current.items() if s.table_path.exists()}
        if counts != rows:
            yield f"the catalogue shows {counts}, current are {rows}"


def violations_of_leftovers(store: Store, since: float) -> Iterator[str]:
    """The start of a run has removed what earlier kills left."""
    for path in (store.root / "building").glob("*"):
        if path.stat().st_ctime < since:
            yield f"{path.name} outlived the next start"


def violations_of_history(home: Home, runs: list[Attempt]) -> Iterator[str]:
    """Killed runs are marked as failed, save those killed before they had begun an asset."""
    import dagster as dg

    from sot_pipeline.defs.instance import open_instance

    with open_instance(home) as instance:
        statuses = [run.status for run in instance.get_runs()]
    if statuses[0] != dg.DagsterRunStatus.SUCCESS:
        yield f"the last run is {statuses[0]}"
    ended = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)
    num_open = sum(status not in ended for status in statuses)
    if num_open > sum(run.killed and not run.asset for run in runs):
        yield f"runs whose process is gone are not marked as failed: {statuses}"


# what a machine's mood decides
MEASURED = ("seconds", "seconds_per_step", "defence_seconds", "defence_seconds_per_step",
            "peak_memory_bytes")  # fmt: skip


def results(store: Store) -> dict[str, str]:
    """Hash of every table, array and weights file that is current, times of day left out."""
    digests = {}
    for name, stored in store.current_of(TASK).items():
        if stored.table_path.exists():
            table, buffer = stored.table(), io.BytesIO()
            table.drop(*MEASURED, strict=False).write_ipc(buffer)
            digests[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
        for path in sorted(stored.directory.rglob("*")):
            if path.suffix in (".npy", ".safetensors"):
                digests[f"{name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def num_embedded_twice(root: Path) -> int:
    log = root / "embedded.log"
    keys = log.read_text().split() if log.exists() else []
    return len(keys) - len(set(keys))


def kill_again_and_again(
    folder: Path, *, num_kills: int, seed: int, job: str, num_rows: int = NUM_ROWS
) -> Findings:
    """Kill until `num_kills` is reached; the table goes to stdout as it happens."""
    rng = random.Random(seed)
    files = write_small_project(folder / "texts", num_rows=num_rows, num_harmful=num_rows // 10)
    undisturbed = write_home(folder / "undisturbed", files)
    whole = attempt(undisturbed.root, job, None)
    if whole.error:
        raise RuntimeError(whole.error)
    expected = results(Store(undisturbed.store))
    print(f"undisturbed: {whole.seconds:.1f} s of work, {len(expected)} results, seed {seed}")
    print(f"{'kill':>4}  {'home':>4}  {'after':>7}  {'artefacts':>9}  {'twice':>5}  during")
    findings = Findings()
    while len(findings.kills) < num_kills:
        home = write_home(folder / f"home{findings.num_finished}", files)
        _kill_until_finished(home, job, whole.seconds, num_kills, rng, expected, findings)
        findings.num_finished += 1
    return findings


def _kill_until_finished(
    home: Home,
    job: str,
    seconds: float,
    num_kills: int,
    rng: random.Random,
    expected: dict[str, str],
    findings: Findings,
) -> None:
    store, runs, before = Store(home.store), [], set()
    while True:
        enough = len(findings.kills) >= num_kills
        # what was finished stays, so early moments of a restart are late ones of the work
        moment = None if enough else rng.uniform(0, 0.6 * seconds)
        leftovers = {path for path in (store.root / "building").glob("*-*") if path.is_dir()}
        run = attempt(home.root, job, moment)
        runs.append(run)
        problems = list(violations_after_kill(store, before))
        if run.asset:
            problems += violations_of_leftovers(store, run.begun)
            findings.num_swept += len(leftovers)
        before = set(artefacts(store))
        findings.num_artefacts_checked += len(before)
        if run.killed:
            findings.kills.append(run)
            print(
                f"{len(findings.kills):>4}  {findings.num_finished:>4}  {run.seconds:>6.1f}s  "
                f"{len(before):>9}  {num_embedded_twice(home.root):>5}  "
                f"{run.asset or 'start'}",
                flush=True,
            )
        else:
            problems += [run.error] if run.error else _violations_at_the_end(
                home, runs, expected
            )  # fmt: skip
            findings.num_embedded_twice += num_embedded_twice(home.root)
        findings.violations += problems
        for problem in problems:
            print(f"      VIOLATION {problem}", flush=True)
        if not run.killed:
            print(f"      home {findings.num_finished}: finished after {len(runs) - 1} kills")
            return


def _violations_at_the_end(
    home: Home, runs: list[Attempt], expected: dict[str, str]
) -> Iterator[str]:
    store = Store(home.store)
    found = results(store)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            yield f"{name} differs from the undisturbed run's"
    for folder in ("building", "scratch"):
        yield from (f"left behind: {path}" for path in (store.root / folder).glob("*"))
    # a kill loses what waits for its shard, and the batch that was just computed
    allowed = (len(runs) - 1) * 2 * SHARD_ROWS
    if num_embedded_twice(home.root) > allowed:
        yield f"{num_embedded_twice(home.root)} rows embedded twice, at most {allowed} expected"
    yield from violations_of_history(home, runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, help="an empty folder to work in [a temporary one]")
    parser.add_argument("--job", default="purify_and_finetune")
    parser.add_argument("--rows", type=int, default=NUM_ROWS, help="of the custom set")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        return run_child(options.child, options.job)
    with tempfile.TemporaryDirectory(prefix="sot-crash-") as temporary:
        folder = options.home or Path(temporary)
        start = time.monotonic()
        findings = kill_again_and_again(
            folder,
            num_kills=options.kills,
            seed=options.seed,
            job=options.job,
            num_rows=options.rows,
        )
    during = {kill.asset or "start" for kill in findings.kills}
    print(
        f"\n{len(findings.kills)} kills during {len(during)} different assets, "
        f"{findings.num_finished} finished runs equal to the undisturbed one, "
        f"{findings.num_artefacts_checked} looks at an artefact, {findings.num_swept} unfinished "
        f"swept, {findings.num_embedded_twice} rows embedded twice, "
        f"{len(findings.violations)} violations, {time.monotonic() - start:.0f} s"
    )
    return 1 if findings.violations else 0


if __name__ == "__main__":
    sys.exit(main())
