"""Where the numbers of a training go, step by step: log lines, MLflow, Weights & Biases.

The last two are off unless asked for, and neither package is needed otherwise. Only numbers and
the recipe are sent; no text of any row.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sot_pipeline.errors import InputError
from sot_pipeline.progress import duration

if TYPE_CHECKING:
    from sot_pipeline.finetuning.loop import StepReport

OnStep = Callable[["StepReport"], None]
PROJECT = "sot_pipeline"


def progress_lines(say: Callable[[str], None], *, every_seconds: float = 10.0) -> OnStep:
    """Says how far training is: after the first step, now and then, and after the last."""
    start = time.monotonic()
    last, first_step, tokens = float("-inf"), 0, 0.0

    def on_step(report: "StepReport") -> None:
        nonlocal last, first_step, tokens
        first_step = first_step or report.step
        tokens += report.values["tokens"]
        now = time.monotonic()
        if now - last >= every_seconds or report.step == report.num_steps:
            last = now
            say(describe_step(report, report.step - first_step + 1, tokens, now - start))

    return on_step


def describe_step(report: "StepReport", num_done: int, tokens: float, seconds: float) -> str:
    """'step 12 of 90 (13%), 5,210 tokens/s, 20 s left, loss 1.2340, 41.3 effective rows'.

    Args:
        num_done, tokens: Steps and tokens of these seconds; what came from a checkpoint is
            no part of the rate.
    """
    left = (report.num_steps - report.step) * seconds / num_done
    return (
        f"step {report.step:,} of {report.num_steps:,} ({report.step / report.num_steps:.0%}), "
        f"{tokens / max(seconds, 1e-9):,.0f} tokens/s, {duration(left)} left, "
        f"loss {report.values['loss']:.4f}, {report.values['effective_rows']:.1f} effective rows"
    )


@contextlib.contextmanager
def tracked(
    where: str | None, name: str, parameters: Mapping[str, Any], *listeners: OnStep
) -> Iterator[OnStep]:
    """One listener for the time of a training: those given, and a tracker where one is asked for.

    Args:
        where: "mlflow" or "wandb", which read their usual variables (`MLFLOW_TRACKING_URI`,
            `WANDB_MODE` ...), "mlflow:URI" with a tracking URI such as `sqlite:///runs.db`, or
            None for no tracker.
        name: Of the run.
        parameters: What is the same for all steps.

    Raises:
        InputError: another word, or the package is not installed.
    """
    with contextlib.ExitStack() as stack:
        if where is not None:
            listeners = (*listeners, stack.enter_context(_opened(where, name, parameters)))

        def on_step(report: "StepReport") -> None:
            for listener in listeners:
                listener(report)

        yield on_step


def _opened(
    where: str, name: str, parameters: Mapping[str, Any]
) -> contextlib.AbstractContextManager[OnStep]:
    kind, _, target = where.partition(":")
    try:
        if kind == "mlflow":
            import mlflow

            return _mlflow(mlflow, target, name, parameters)
        if where == "wandb":
            import wandb

            return _wandb(wandb, name, parameters)
    except ImportError as error:
        raise InputError(
            f"training is to be tracked by {kind}, which is not installed ({error}): install it "
            f"(`pip install {kind}`), or do not ask for it (SOT_TRACKING)"
        ) from error
    raise InputError(
        f"training is to be tracked by {where!r} (SOT_TRACKING); expected 'mlflow', 'mlflow:URI' "
        "or 'wandb'"
    )


@contextlib.contextmanager
def _mlflow(mlflow: Any, target: str, name: str, parameters: Mapping[str, Any]) -> Iterator[OnStep]:
    if target:
        mlflow.set_tracking_uri(target)
    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=name):
        mlflow.log_params(dict(parameters))
        yield lambda report: mlflow.log_metrics(dict(report.values), step=report.step)


@contextlib.contextmanager
def _wandb(wandb: Any, name: str, parameters: Mapping[str, Any]) -> Iterator[OnStep]:
    with wandb.init(project=PROJECT, name=name, config=dict(parameters)) as run:
        yield lambda report: run.log(dict(report.values), step=report.step)
