"""Dagster's Pipes for a process that a step starts: its log lines reach the run's event log."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping

import dagster as dg


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
