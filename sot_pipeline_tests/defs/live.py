"""A Dagster UI with its daemon as real processes on a small project, and what its runs did."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from sot_pipeline.defs.home import Home
from sot_pipeline.defs.instance import open_instance

SOT = str(Path(sys.executable).with_name("sot"))
UNFINISHED = {"QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"}


@dataclass
class Live:
    """The processes of one `sot ui`."""

    home: Home
    port: int
    process: subprocess.Popen
    log: Path

    def graphql(self, query: str) -> dict:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["data"]

    def kill(self) -> None:
        """End every process at once, as a power loss would: the daemon, the UI, the runs."""
        for process_id in descendants(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        self.process.wait(30)


def descendants(process_id: int) -> list[int]:
    """A process and all that it started, which may have left its process group."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found = [process_id]
    for parent in found:
        found += children.get(parent, [])
    return found


@contextlib.contextmanager
def ui(home: Home, **environment: str) -> Iterator[Live]:
    """`sot ui` with everything watched every second; killed at the end, whatever happens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home.root / f"ui-{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [SOT, "ui", "--home", str(home.root), "--port", str(port)],
            cwd=home.root,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "SOT_SENSOR_SECONDS": "1",
                "SOT_QUIET_SECONDS": "3",
                "OMP_NUM_THREADS": "1",
                "PYTHONWARNINGS": "ignore",
                **environment,
            },
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    live = Live(home, port, process, log)
    try:
        wait_until(lambda: ticked(live), 180, f"the sensors of {log}")
        yield live
    finally:
        live.kill()


def ticked(live: Live) -> bool:
    """Whether the automation has looked once since this UI was started."""
    assert live.process.poll() is None, live.log.read_text()[-3000:]
    query = """{ sensorsOrError(repositorySelector: {repositoryName: "__repository__",
      repositoryLocationName: "sot_pipeline"}) { ... on Sensors { results { name
      sensorState { ticks(limit: 1) { timestamp status } } } } } }"""
    try:
        sensors = live.graphql(query)["sensorsOrError"].get("results", [])
    except OSError:
        return False
    ticks = {sensor["name"]: sensor["sensorState"]["ticks"] for sensor in sensors}
    began = live.log.stat().st_ctime if False else live_since(live)
    return all(
        ticks.get(name) and ticks[name][0]["timestamp"] > began
        for name in ("source_files", "sot_automation")
    )


def live_since(live: Live) -> float:
    return float(Path(f"/proc/{live.process.pid}").stat().st_ctime)


def wait_until(happened: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happened():
            return
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass(frozen=True)
class Run:
    run_id: str
    status: str
    task: str | None
    planned: set[str]
    computed: set[str]
    hits: set[str]


def runs(home: Home) -> list[Run]:
    """Every run of a home, the oldest first, with the assets it was for and those it made."""
    with open_instance(home) as instance:
        return [_run(instance, run) for run in reversed(instance.get_runs())]


def _run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Run:
    made = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    cache = {
        entry.asset_materialization.asset_key.to_user_string(): entry.asset_materialization.metadata["cache"].value
        for entry in made
        if entry.asset_materialization
    }
    return Run(
        run.run_id,
        run.status.value,
        run.tags.get("dagster/partition"),
        {key.to_user_string() for key in run.asset_selection or ()},
        {name for name, value in cache.items() if value == "miss"},
        {name for name, value in cache.items() if value == "hit"},
    )
