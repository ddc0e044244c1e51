"""Fixtures that every part of the suite shares."""

import os
from pathlib import Path

import hypothesis
import pytest

# Fixed examples, so that a change and not chance decides whether the tests pass;
# HYPOTHESIS_PROFILE=explore looks further, and every find becomes a test of its own.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", max_examples=1000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

PROJECT_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real text sets, which is not part of the project; tests skip where it is absent."""
    folder = Path(os.environ.get("SOT_SHARED_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    if not (folder / "custom_alpaca_p10.parquet").exists():
        pytest.skip(f"no real text sets at {folder} (set SOT_SHARED_DATA)")
    return folder
