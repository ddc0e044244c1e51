"""Rows spread over eight devices: the same weights, one exchange of a reference's length a sweep."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sot_pipeline.transport.push_pull import learn_weights, learn_weights_from_embeddings
from sot_pipeline_tests.transport.problems import clusters, random_problem

DATA = clusters(num_custom=61)  # no multiple of 8
SETS = (DATA.custom, DATA.safe, DATA.harmful)
COSTS = random_problem(n=61)
TIGHT = {"tolerance": 2e-4}
STORAGES = ["float32", "float16", "recomputed"]
NUM_COLUMNS = 20

# Devices are counted once, when jax starts: eight of them need a process of their own.
SCRIPT = """
import json, re, sys

import jax
import numpy as np

from sot_pipeline.errors import InputError
from sot_pipeline.transport import kernel, tiles
from sot_pipeline.transport.push_pull import learn_weights, learn_weights_from_embeddings
from sot_pipeline.transport.reference import ReferenceTransport
from sot_pipeline.transport.tiles import RowCosts
from sot_pipeline.transport.vectors import cosine_columns, storage_within
from sot_pipeline_tests.transport.test_sharding import COSTS, NUM_COLUMNS, SETS, STORAGES, TIGHT

assert len(jax.devices()) == 8
answers = {}


def least_limit(storage):
    rows = [RowCosts(SETS[0], len(other)) for other in SETS[1:]]
    low, high = 0, 1 << 40  # the fastest storage that fits is the wanted one or a faster one
    while high - low > 1:
        middle = (low + high) // 2
        try:
            first = storage_within(middle, *rows)[0]
            enough = STORAGES.index(first) <= STORAGES.index(storage)
        except InputError:
            enough = False
        low, high = (low, middle) if enough else (middle, high)
    return high


def note(name, fit):
    answers[name] = {
        "log_weights": fit.log_weights.tolist(),
        "storage": fit.storage,
        "converged": bool(fit.converged),
    }


for relaxation in (0.0, 0.9):
    note(f"costs {relaxation}", learn_weights(*COSTS, reference_relaxation=relaxation, **TIGHT))
for storage in STORAGES:
    limit = least_limit(storage)
    note(storage, learn_weights_from_embeddings(*SETS, memory_limit=limit, **TIGHT))

columns = cosine_columns(SETS[1], None)
log_weights = np.full(len(SETS[0]), -np.log(len(SETS[0])))
for storage in ("float32", "recomputed"):
    problem = ReferenceTransport(
        RowCosts(SETS[0], NUM_COLUMNS, columns), epsilon=0.5, tau_b=1.0, storage=storage
    )
    problem.solve(log_weights, threshold=1e-4, max_sweeps=50)
    programs, held = tiles._programs(tiles._mesh()), problem.tiles
    [mass] = held.place(np.exp(log_weights))
    g, epsilon = held._vector(problem.g), held._scalar(problem.epsilon)
    if storage == "recomputed":
        rows = held._place(held.costs.rows)
        lowered = programs.sweep_costs.lower(rows, columns, g, mass, epsilon)
    else:
        [stored] = held._kernel
        answers["rows per device"] = [
            shard.data.shape for shard in stored.addressable_shards
        ]
        lowered = programs.sweep.lower(stored, np.ones_like(g), mass)
    text = lowered.compile().as_text()
    answers["exchanges " + storage] = re.findall(
        r"= (\\S+) (all-\\w+|reduce-scatter|collective-permute)(?:-start)?\\(", text
    )

few = [cost[:5] for cost in COSTS]
note("five rows", learn_weights(*few, **TIGHT))
# last, since it stays: tiles of 48 rows at most, placed in pieces of one block of two rows a device
row = 4 * NUM_COLUMNS
tiles._TILE_BYTES, tiles._PIECE_BYTES = 6 * row, 2 * row
kernel._BLOCK_BYTES, kernel._WHOLE_BYTES = 2 * row, 0
for storage in STORAGES:
    limit = least_limit(storage)
    fit = learn_weights_from_embeddings(*SETS, memory_limit=limit, **TIGHT)
    note(storage + " in pieces", fit)
with open(sys.argv[1], "w") as file:
    json.dump(answers, file)
"""


@pytest.fixture(scope="module")
def on_eight_devices(tmp_path_factory):
    """What a process with eight devices found."""
    answers = tmp_path_factory.mktemp("sharding") / "answers.json"
    project = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(project),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(answers)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(answers.read_text())


@pytest.mark.parametrize("relaxation", [0.0, 0.9])
def test_weights_from_costs_are_those_of_one_device(on_eight_devices, relaxation):
    alone = learn_weights(*COSTS, reference_relaxation=relaxation, **TIGHT)
    spread = on_eight_devices[f"costs {relaxation}"]
    assert alone.converged
    assert spread["converged"]
    np.testing.assert_allclose(spread["log_weights"], alone.log_weights, atol=1e-4)


def test_devices_without_rows_do_no_harm(on_eight_devices):
    alone = learn_weights(*(cost[:5] for cost in COSTS), **TIGHT)
    spread = on_eight_devices["five rows"]
    np.testing.assert_allclose(spread["log_weights"], alone.log_weights, atol=1e-4)


@pytest.mark.parametrize("how", ["", " in pieces"])
@pytest.mark.parametrize("storage", STORAGES)
def test_weights_from_embeddings_are_those_of_one_device(on_eight_devices, storage, how):
    alone = learn_weights_from_embeddings(*SETS, **TIGHT)
    spread = on_eight_devices[storage + how]
    assert spread["storage"].split("+")[0] == storage
    assert spread["converged"]
    np.testing.assert_allclose(spread["log_weights"], alone.log_weights, atol=1e-4)


def test_every_device_holds_its_rows_of_the_kernel_and_no_others(on_eight_devices):
    shapes = on_eight_devices["rows per device"]
    assert len(shapes) == 8
    assert {tuple(shape) for shape in shapes} == {(1, 1, 8, NUM_COLUMNS)}  # 61 rows by 8


@pytest.mark.parametrize("storage", ["float32", "recomputed"])
def test_a_sweep_exchanges_the_column_masses_once_and_nothing_else(on_eight_devices, storage):
    [(shape, operation)] = on_eight_devices[f"exchanges {storage}"]
    assert operation == "all-reduce"
    assert shape.split("{")[0] == f"f32[{NUM_COLUMNS}]"
