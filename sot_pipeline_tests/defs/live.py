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

from sot_pipeline.definitions import JOBS, defs
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.instance import open_instance
from sot_pipeline_tests.small_project import write_small_project

SOT = Path(sys.executable).with_name("sot")
DAGSTER = Path(sys.executable).with_name("dagster")
PATIENCE = 300  # seconds for a run of a dozen small assets on two loaded cores
QUIET_SECONDS = 3
# what the daemon writes each time
LOOKS = {
    "source_files": b"Checking for new runs for sensor: source_files",
    "sot_automation": b"Finished auto-materialization tick for sot_automation",
}
PROJECT_ROOT = Path(__file__).resolve().parents[2]


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

    def settle(self) -> None:
        """Wait until a change of this moment would have made its run."""
        self.look("source_files")
        time.sleep(QUIET_SECONDS)
        self.look("source_files")
        self.look("sot_automation")

    def look(self, sensor: str) -> None:
        """Wait until a sensor has looked once, from now on."""
        position = self.log.stat().st_size

        def looked() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            # the first line may belong to a look that began before
            return self.log.read_bytes()[position:].count(LOOKS[sensor]) >= 2

        wait_until(looked, PATIENCE, f"{sensor} looks, see {self.log}")

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
def ui(home: Home, *, command: str = "sot", **environment: str) -> Iterator[Live]:
    """The UI and its daemon, looking as often as they can; killed at the end, whatever happens.

    Args:
        command: "sot": `sot ui`; "dagster": `dagster dev`, which knows nothing of the project
            but its definitions.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    commands = {
        "sot": [SOT, "ui", "--home", home.root, "--port", port],
        "dagster": [DAGSTER, "dev", "-w", PROJECT_ROOT / "workspace.yaml", "-p", port],
    }
    log = home.root / f"ui-{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(argument) for argument in commands[command]],
            cwd=home.root,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "SOT_SENSOR_SECONDS": "1",
                "SOT_QUIET_SECONDS": str(QUIET_SECONDS),
                "SOT_HOME": str(home.root),
                "DAGSTER_HOME": str(home.dagster),
                "OMP_NUM_THREADS": "1",
                "PYTHONWARNINGS": "ignore",
                **environment,
            },
        )
    live = Live(home, port, process, log)
    try:
        for sensor in LOOKS:
            live.look(sensor)
        yield live
    finally:
        live.kill()


def wait_until(happened: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happened():
            return
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass(frozen=True)
class Run:
    """A run, the assets it was for, and those it made: computed, or found in the store."""

    run_id: str
    status: str
    task: str | None
    planned: set[str]
    computed: set[str]
    found: set[str]

    @property
    def ended(self) -> bool:
        return self.status in ("SUCCESS", "FAILURE", "CANCELED")


def runs(home: Home) -> list[Run]:
    """Every run of a home, the oldest first."""
    with open_instance(home) as instance:
        return [_run(instance, run) for run in reversed(instance.get_runs())]


def _run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Run:
    logs = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    made = [entry.asset_materialization for entry in logs if entry.asset_materialization]
    cache = {event.asset_key.to_user_string(): event.metadata["cache"].value for event in made}
    return Run(
        run_id=run.run_id,
        status=run.status.value,
        task=run.tags.get("dagster/partition"),
        planned={key.to_user_string() for key in run.asset_selection or ()},
        computed={name for name, value in cache.items() if value == "miss"},
        found={name for name, value in cache.items() if value == "hit"},
    )


def purified_tasks(folder: Path) -> tuple[Home, dict[str, Path]]:
    """Two tasks on copies of the same texts, each purified once by hand; files of `small`."""
    files = write_small_project(folder / "small")
    copies = write_small_project(folder / "other")
    for task, texts in (("small", files), ("other", copies)):
        subprocess.run(
            [
                SOT, "purify", texts["custom"], "--safe", texts["safe"], "--harmful",
                texts["harmful"], "--embedder", files["model"], "--task", task,
                "--home", folder / "data",
            ],
            check=False,  # findings are exit code 3
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    home = Home(folder / "data")
    assert [run.status for run in runs(home)] == ["SUCCESS", "SUCCESS"]
    return home, files


def depends_on(*assets: str) -> set[str]:
    """The assets of the purification that follow from these, with them."""
    graph = defs().resolve_asset_graph()
    found = {dg.AssetKey(asset) for asset in assets}
    pending = list(found)
    while pending:
        children = graph.get(pending.pop()).child_keys - found
        found |= children
        pending += children
    return {key.to_user_string() for key in found} & JOBS["purify"]


def row(number: int) -> str:
    words = " ".join(["why", "because", "again", "system"][: 1 + number % 4])
    return json.dumps({"prompt": f"what is {words} {number}", "response": "tool header start"})


def append(path: Path, *numbers: int) -> None:
    with path.open("a") as file:
        file.write("".join(row(number) + "\n" for number in numbers))


def new_runs(live: Live, before: list[Run], count: int = 1) -> list[Run]:
    """Wait until so many runs ended, and then until another one would have appeared."""
    known = {run.run_id for run in before}

    def since() -> list[Run]:
        return [run for run in runs(live.home) if run.run_id not in known]

    wait_until(lambda: sum(run.ended for run in since()) >= count, PATIENCE, f"{count} runs end")
    live.settle()
    return since()


def seen_and_not_reported(live: Live, task: str) -> bool:
    """Whether the sensor's memory holds a change that it has not reported yet."""
    query = """{ sensorOrError(sensorSelector: {repositoryName: "__repository__",
      repositoryLocationName: "sot_pipeline", sensorName: "source_files"}) { ... on Sensor {
      sensorState { typeSpecificData { ... on SensorData { lastCursor } } } } } }"""
    state = live.graphql(query)["sensorOrError"]["sensorState"]
    return not json.loads(state["typeSpecificData"]["lastCursor"])[task]["settled"]
