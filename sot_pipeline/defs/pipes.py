"""Where a training runs: here, or in a process of its own that Dagster's Pipes watches.

Nothing of this decides what is learnt.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from sot_pipeline.defs.cached_asset import Stage
from sot_pipeline.progress import listener

if TYPE_CHECKING:
    from sot_pipeline.finetuning.job import TrainingJob
    from sot_pipeline.finetuning.loop import StepReport
    from sot_pipeline.finetuning.train import FinetuneResult


@contextlib.contextmanager
def watched() -> Iterator[Mapping[str, str]]:
    """Variables with which a process reports to the Dagster step that starts it.

    Empty where no step is running: in a worker process, or where an asset is made without Dagster.
    """
    try:
        context = dg.AssetExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        yield {}
        return
    with contextlib.ExitStack() as stack:
        with warnings.catch_warnings():  # Dagster 1.13 warns of a property that it reads itself
            warnings.simplefilter("ignore", dg.PreviewWarning)
            session = stack.enter_context(
                dg.open_pipes_session(
                    context=context,
                    context_injector=dg.PipesEnvContextInjector(),
                    message_reader=dg.PipesTempFileMessageReader(),
                )
            )
        yield session.get_bootstrap_env_vars()


SMALL_MODEL = 200_000_000  # bytes of weights; starting a process takes about as long as training


def run_job(stage: Stage, job: "TrainingJob", folder: Path, num_rows: int) -> "FinetuneResult":
    """What a job came to; `folder` holds its files.

    Raises:
        InputError: as `finetune_lora`.
        TrainingFailed: a training process died.
    """
    num_processes = _num_processes(stage, num_rows)
    if not _is_apart(stage, job, num_processes):
        return _run_here(stage, job)
    import gc

    import torch

    from sot_pipeline.finetuning.launch import run_apart

    gc.collect()
    torch.cuda.empty_cache()  # what embedding or evaluation left on the GPU is the trainer's now

    with watched() as environment:
        return run_apart(
            job,
            folder,
            num_processes=num_processes,
            # the trainer itself says how far it is where a run's event log takes it
            on_step=_progress(stage, say=None if environment else stage.log),
            environment=environment,
        )


def _run_here(stage: Stage, job: "TrainingJob") -> "FinetuneResult":
    import torch

    from sot_pipeline.finetuning.job import train
    from sot_pipeline.finetuning.tracking import tracked

    with tracked(job.tracking, job.name, job.recipe, _progress(stage, say=stage.log)) as on_step:
        result = train(job, on_step)
    if not torch.cuda.is_available():  # the peak of a process in which much else has run
        result = result._replace(peak_memory=None)
    return result


def _progress(stage: Stage, say: Callable[[str], None] | None) -> "Callable[[StepReport], None]":
    from sot_pipeline.finetuning.tracking import progress_lines

    label = stage.directory.name.rsplit("-", 1)[0]
    lines = progress_lines(lambda line: say(f"{label}: {line}")) if say else None

    def on_step(report: "StepReport") -> None:
        listener().advanced(label, "steps", report.step, report.num_steps)
        if lines is not None:
            lines(report)

    return on_step


def _num_processes(stage: Stage, num_rows: int) -> int:
    import torch

    useful = min(torch.cuda.device_count(), stage.settings.finetuning.batch_size, num_rows)
    return stage.training.num_processes or max(1, useful)


def _is_apart(stage: Stage, job: "TrainingJob", num_processes: int) -> bool:
    """By default unless a small model is trained on the CPU, where there is little memory to
    give back and little to crash."""
    import torch

    if stage.training.apart is not None and num_processes == 1:
        return stage.training.apart
    weights = [path.stat().st_size for path in Path(job.base).glob("*.safetensors")]
    small = bool(weights) and sum(weights) <= SMALL_MODEL
    return num_processes > 1 or torch.cuda.is_available() or not small
