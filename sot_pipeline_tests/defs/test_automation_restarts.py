"""What becomes of a change when the daemon, or everything, is killed in the middle of it."""

from pathlib import Path

import pytest

from sot_pipeline.defs.home import Home
from sot_pipeline_tests.defs.live import (
    PATIENCE,
    append,
    depends_on,
    new_runs,
    purified_tasks,
    runs,
    seen_and_not_reported,
    ui,
    wait_until,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> tuple[Home, dict[str, Path]]:
    return purified_tasks(tmp_path_factory.mktemp("project"))


def test_a_kill_within_the_quiet_time_loses_nothing_and_doubles_nothing(project):
    home, files = project
    before = runs(home)
    with ui(home, SOT_QUIET_SECONDS="20") as live:
        live.settle()
        append(files["harmful"], 30)
        wait_until(lambda: seen_and_not_reported(live, "small"), 60, "the change is seen")
        live.kill()
    assert runs(home) == before
    with ui(home, SOT_QUIET_SECONDS="20") as live:
        (run,) = new_runs(live, before)
    assert run.status == "SUCCESS"
    assert run.planned == depends_on("harmful_texts")


def test_a_run_that_dies_with_everything_is_failed_and_taken_up_again(project):
    home, files = project
    before = runs(home)

    def under_way() -> bool:
        return any(run.computed for run in runs(home)[len(before) :])

    with ui(home, command="dagster") as live:
        append(files["harmful"], 40)
        wait_until(under_way, PATIENCE, "a run is under way")
        live.kill()
    (dead,) = runs(home)[len(before) :]
    assert dead.status == "STARTED"
    with ui(home, command="dagster") as live:
        dead, again = new_runs(live, before, count=2)
        assert (dead.status, again.status) == ("FAILURE", "SUCCESS")
        made = dead.computed | dead.found | again.computed | again.found
        assert made == depends_on("harmful_texts")
        # and automation goes on
        before = runs(home)
        append(files["harmful"], 41)
        (run,) = new_runs(live, before)
    assert run.status == "SUCCESS"
    assert run.planned == depends_on("harmful_texts")
