"""Runs whose process is gone are failed, and no others."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from sot_pipeline.definitions import ASSETS, defs
from sot_pipeline.defs.dagster_assets import (
    dagster_asset,
)
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.instance import (
    PROCESS_TAG,
    UNCLAIMED_SECONDS,
    claim_run,
    fail_orphaned_runs,
    open_instance,
)
from sot_pipeline_tests.defs.by_hand import resources


@pytest.fixture
def started(tmp_path):
    """Make runs that Dagster believes to be running."""
    with open_instance(Home(tmp_path)) as instance:
        job = defs().resolve_job_def("purify")

        def start(**tags: str) -> str:
            run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
            return run.run_id

        yield instance, start


def claimed_by_another_process(instance: dg.DagsterInstance, run_id: str) -> subprocess.Popen:
    """A live process that claimed a run, and waits."""
    code = (
        "import sys, time, dagster as dg; from sot_pipeline.defs.instance import claim_run\n"
        "instance = dg.DagsterInstance.from_config(sys.argv[1])\n"
        "claim_run(instance, sys.argv[2]); print('claimed', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, instance.root_directory, run_id],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"claimed\n"
    return process


def test_a_run_is_failed_when_its_process_dies_and_not_before(started):
    instance, start = started
    run_id = start()
    with claimed_by_another_process(instance, run_id) as process:
        try:
            assert fail_orphaned_runs(instance) == 0
        finally:
            process.kill()
        wait_for_zombie(process.pid)  # killed, and not yet waited for: no longer at work
        assert fail_orphaned_runs(instance) == 1
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert fail_orphaned_runs(instance) == 0


def wait_for_zombie(process_id: int) -> None:
    for _ in range(100):
        if ") Z " in Path(f"/proc/{process_id}/stat").read_text():
            return
        time.sleep(0.05)
    raise AssertionError("the process lives on")


def test_a_process_id_that_another_process_has_now_is_not_the_run(started):
    instance, start = started
    run_id = start()
    claim_run(instance, run_id)
    assert fail_orphaned_runs(instance) == 0
    run = instance.get_run_by_id(run_id)
    mark = json.loads(run.tags[PROCESS_TAG])
    instance.add_run_tags(run_id, {PROCESS_TAG: json.dumps([*mark[:3], "12345"])})
    assert fail_orphaned_runs(instance) == 1


def test_a_run_of_another_host_is_left_alone(started):
    instance, start = started
    run_id = start()
    mark = json.dumps([run_id, "another-host", 2**22 + 1, "1"])
    instance.add_run_tags(run_id, {PROCESS_TAG: mark})
    assert fail_orphaned_runs(instance, now=time.time() + 10 * UNCLAIMED_SECONDS) == 0


def test_a_run_that_nobody_claimed_has_time_to_begin(started):
    instance, start = started
    start()
    inherited = json.dumps(["the run that this one repeats", "host", 2**22 + 1, "1"])
    start(**{PROCESS_TAG: inherited})
    assert fail_orphaned_runs(instance) == 0
    assert fail_orphaned_runs(instance, now=time.time() + UNCLAIMED_SECONDS + 5) == 2


def test_every_run_is_claimed_by_its_steps(home):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("task", ["small"])
        asset = next(asset for asset in ASSETS if asset.name == "safe_texts")
        result = dg.materialize(
            [dagster_asset(asset)],
            instance=instance,
            partition_key="small",
            resources=resources(home),
        )
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert json.loads(run.tags[PROCESS_TAG])[:3:2] == [result.run_id, os.getpid()]
