"""What the running daemon does by itself when files change, or cannot be read.

The daemon, the UI and the runs are real processes, the files real files; a scenario looks at the
runs that the instance recorded. Sensors look every second and wait for 3 quiet seconds here.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest

from sot_pipeline.defs.home import Home
from sot_pipeline.defs.instance import open_instance
from sot_pipeline.defs.report_links import newest_report
from sot_pipeline.defs.store import Store
from sot_pipeline_tests.defs.live import (
    Live,
    append,
    depends_on,
    new_runs,
    purified_tasks,
    row,
    runs,
    ui,
    wait_until,
)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> tuple[Home, dict[str, Path]]:
    return purified_tasks(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def webhook() -> Iterator[tuple[str, list[dict]]]:
    """An address, and the messages that arrived there."""
    messages: list[dict] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", messages
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def live(project, webhook) -> Iterator[Live]:
    home, _ = project
    with ui(home, SOT_WEBHOOK_URL=webhook[0]) as live:
        yield live


def num_rows(home: Home, asset: str, task: str = "small") -> int:
    stored = Store(home.store).current(task, asset)
    assert stored is not None
    return stored.table().height


def test_appends_over_seconds_make_one_run_of_exactly_what_depends_on_the_file(project, live):
    home, files = project
    before = runs(home)
    for number in range(4):
        append(files["harmful"], number)
        time.sleep(1.5)
    with files["harmful"].open("a") as file:  # and a row that arrives in pieces
        for piece in (row(4)[:20], row(4)[20:] + "\n"):
            file.write(piece)
            file.flush()
            time.sleep(2)
    (run,) = new_runs(live, before)
    assert (run.status, run.task) == ("SUCCESS", "small")
    assert run.planned == depends_on("harmful_texts")
    assert not run.planned & {"custom_texts", "custom_embeddings", "safe_embeddings", "pull_cost"}
    assert run.computed | run.found == run.planned
    assert run.computed >= {"harmful_texts", "push_cost", "sample_weights", "selected_samples"}
    assert num_rows(home, "harmful_texts") == 20
    files["custom"].touch()
    files["safe"].write_bytes(files["safe"].read_bytes())
    live.settle()
    assert runs(home)[len(before) :] == [run], "equal contents make no run"
    # and the UI says the same
    answer = live.graphql("{ runsOrError(limit: 1) { ... on Runs { results { id status } } } }")
    assert answer["runsOrError"]["results"] == [{"id": run.run_id, "status": "SUCCESS"}]


def test_the_ui_serves_the_report_and_answers_no_foreign_page(project, live):
    home, _ = project
    address, report = f"http://127.0.0.1:{live.port}", newest_report(home, "small")
    with urllib.request.urlopen(f"{address}{report}", timeout=30) as answer:
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert b"<h1" in answer.read()
    mutation = "/graphql?query=mutation%7BreloadWorkspace%7B__typename%7D%7D"
    for path, header in (
        ("/", {"Host": "evil.example"}),
        ("/graphql", {"Origin": "https://evil.example"}),
        (mutation, {}),
    ):
        request = urllib.request.Request(address + path, headers=header)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=30)


@pytest.mark.slow
def test_both_references_together_make_one_run(project, live):
    home, files = project
    before = runs(home)
    append(files["safe"], 10)
    append(files["harmful"], 11)
    (run,) = new_runs(live, before)
    assert (run.status, run.task) == ("SUCCESS", "small")
    assert run.planned == depends_on("harmful_texts", "safe_texts")
    assert not run.planned & {"custom_texts", "custom_embeddings"}


def test_a_moved_selection_is_told_to_the_webhook(project, live, webhook):
    home, _ = project
    with open_instance(home) as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                "purification_changes",
                partition="small",
                metadata={"selection_moved": True, "moved": 0.25, "num_newly_removed": 3},
            )
        )

    def arrived() -> list[dict]:
        return [
            m
            for m in webhook[1]
            if m["event"] == "selection_moved" and m["numbers"]["moved"] == 0.25
        ]

    wait_until(lambda: bool(arrived()), 60, "the webhook is told")
    assert arrived()[0]["task"] == "small"


@pytest.mark.slow
def test_a_broken_file_is_told_and_its_repair_runs(project, live, webhook):
    home, files = project
    before, good = runs(home), files["harmful"].read_bytes()
    files["harmful"].write_text("{broken\n")
    (failed,) = new_runs(live, before)
    assert failed.status == "FAILURE"
    assert not failed.computed
    (told,) = [m for m in webhook[1] if m["run_id"] == failed.run_id]
    assert (told["event"], told["task"], told["asset"]) == ("run_failed", "small", "harmful_texts")
    files["harmful"].write_bytes(good + row(20).encode() + b"\n")
    before = runs(home)
    (repaired,) = new_runs(live, before)
    assert repaired.status == "SUCCESS"
    assert repaired.planned == depends_on("harmful_texts")


@pytest.mark.slow
def test_white_space_alone_embeds_and_solves_nothing(project, live):
    home, files = project
    before = runs(home)
    rows = [json.loads(line) for line in files["safe"].read_text().splitlines()]
    files["safe"].write_text(
        "".join(json.dumps(row, indent=None, separators=(" , ", " : ")) + "\n" for row in rows)
    )
    (run,) = new_runs(live, before)
    assert run.planned == depends_on("safe_texts")
    # the list of rejected rows names the files, and what is exported carries it
    files_are_named = {"rejected_rows", "purified_export", "purification_report"}
    assert run.computed <= {"safe_texts", *files_are_named}
