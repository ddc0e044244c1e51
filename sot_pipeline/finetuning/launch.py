"""Training in a process of its own, or in several.

    python -m sot_pipeline.finetuning.launch JOB.json
    torchrun --nproc-per-node 2 -m sot_pipeline.finetuning.launch JOB.json
    accelerate launch -m sot_pipeline.finetuning.launch JOB.json

The first process writes a line of JSON per step on its standard output, and the job's result to
a file; under Dagster's Pipes it also writes to the run's event log. `run_apart` starts all that
and watches it. A process that is killed, or runs out of memory, takes nobody with it; and when the
one that watches goes, by whatever end, the trainers go with it: all of them hold the reading end
of a pipe to which only that one holds the writing end.
"""

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.job import (
    TrainingJob,
    read_job,
    read_result,
    train,
    write_error,
    write_result,
)

if TYPE_CHECKING:
    from sot_pipeline.finetuning.loop import StepReport
    from sot_pipeline.finetuning.train import FinetuneResult

MODULE = "sot_pipeline.finetuning.launch"
NUM_LAST_LINES = 30  # of the trainer's standard error that a failure shows
INPUT_ERROR = 2  # exit status of a job that cannot be run


class TrainingFailed(RuntimeError):
    """The training process died; what it had trained lies in its last checkpoint."""


# The watching side


def run_apart(
    job: TrainingJob,
    folder: Path,
    *,
    num_processes: int = 1,
    on_step: "Callable[[StepReport], None] | None" = None,
    environment: Mapping[str, str] | None = None,
) -> "FinetuneResult":
    """Run a job in `num_processes` further processes, and wait for it.

    Args:
        folder: Of the job's own files; one job at a time.
        environment: Variables beside those of this process.

    Raises:
        InputError: as `job.train`.
        TrainingFailed: a process ended otherwise than by itself; names how, and its last words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, errors = folder / "job.json", folder / "stderr.txt"
    job = job.seen_from(Path.cwd())
    path.write_text(job.model_dump_json(indent=1))
    job.result.unlink(missing_ok=True)
    command = [*launcher(num_processes), "-m", MODULE, str(path), "--lifeline"]
    with errors.open("w") as stderr, _trainer(command, stderr, environment or {}) as process:
        for line in process.stdout or ():
            report = _report(line)
            if report is not None and on_step is not None:
                on_step(report)
        code = process.wait()
    if job.result.exists():  # written last
        return read_result(job.result)
    raise TrainingFailed(_last_words(code, errors))


def launcher(num_processes: int) -> list[str]:
    """The command before `-m MODULE`; needs no PATH."""
    if num_processes == 1:
        return [sys.executable]
    # `standalone` chooses a free port; no restarts, since that is the caller's to decide
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=0",
            f"--nproc-per-node={num_processes}"]  # fmt: skip


@contextlib.contextmanager
def _trainer(
    command: list[str], stderr: TextIO, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """A process whose standard input ends with this block, and which ends with its input."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **environment},
        text=True,
        start_new_session=True,  # Ctrl-C is for the one that watches
    )
    # a launcher that was killed leaves its trainers behind, and they hold standard output open
    threading.Thread(target=_let_go_after, args=(process,), daemon=True).start()
    try:
        yield process
    finally:
        _end(process)


def _let_go_after(process: subprocess.Popen[str]) -> None:
    process.wait()
    _close(process)


def _close(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError, ValueError):
        process.stdin.close()


def _end(process: subprocess.Popen[str], *, seconds: float = 20.0) -> None:
    """Kill what still runs, and wait until nobody holds the standard output."""
    _close(process)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    output, deadline = process.stdout.fileno(), time.monotonic() + seconds
    while select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not os.read(output, 65_536):
            break
    process.stdout.close()


def _report(line: str) -> "StepReport | None":
    from sot_pipeline.finetuning.loop import StepReport

    try:
        return StepReport(**json.loads(line))
    except (ValueError, TypeError):
        return None  # something else that was printed


def _last_words(code: int, errors: Path) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        how = f"was killed by signal {-code} ({name})"
        if -code == signal.SIGKILL:
            how += ", as a system does that runs out of memory"
    else:
        how = f"ended with exit status {code}"
    lines = errors.read_text(errors="replace").splitlines()[-NUM_LAST_LINES:]
    said = "\n".join(lines) or "(nothing)"
    return f"the training process {how}. The end of its standard error:\n{said}"


# The training side


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description="Run a training job.")
    parser.add_argument("job", type=Path, help="the job's JSON file")
    parser.add_argument(
        "--lifeline", action="store_true", help="end at once when standard input ends"
    )
    options = parser.parse_args(arguments)
    if options.lifeline:
        threading.Thread(target=_end_with_input, daemon=True).start()
    is_first = os.environ.get("RANK", "0") == "0"
    _meet_without_a_gpu()
    reports = _standard_output_of_its_own()
    job = None
    try:
        job = read_job(options.job)
        result = _run(job, reports, is_first=is_first)
    except InputError as error:
        print(error, file=sys.stderr)
        if job is not None and is_first:
            write_error(job.result, error)
        return INPUT_ERROR
    if is_first:
        write_result(job.result, result)
    return 0


def _run(job: TrainingJob, reports: TextIO, *, is_first: bool) -> "FinetuneResult":
    from sot_pipeline.finetuning.tracking import progress_lines, tracked

    if not is_first:  # hears nothing, says nothing
        return train(job)
    with _event_log() as say:
        listeners = [_writer(reports), *([progress_lines(say)] if say else [])]
        with tracked(job.tracking, job.name, job.recipe, *listeners) as on_step:
            return train(job, on_step)


def _writer(reports: TextIO) -> "Callable[[StepReport], None]":
    def write(report: "StepReport") -> None:
        print(json.dumps(report._asdict()), file=reports, flush=True)

    return write


@contextlib.contextmanager
def _event_log() -> "Iterator[Callable[[str], None] | None]":
    """Writes lines to the event log of the Dagster run that watches through Pipes, if one does."""
    from dagster_pipes import PipesEnvVarParamsLoader, open_dagster_pipes

    if not PipesEnvVarParamsLoader().is_dagster_pipes_process():
        yield None
        return
    with open_dagster_pipes() as pipes:
        yield pipes.log.info


def _standard_output_of_its_own() -> TextIO:
    """Standard output for reports alone: what libraries print goes to standard error."""
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return reports


def _meet_without_a_gpu() -> None:
    """accelerate sees no other process on a CPU unless it is told so: each would train alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import torch

        if not torch.cuda.is_available():
            os.environ["ACCELERATE_USE_CPU"] = "true"


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
