"""Fixtures that every part of the suite shares."""

import os
from pathlib import Path

import pytest

PROJECT_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real text sets, which is not part of the project; tests skip where it is absent."""
    folder = Path(os.environ.get("SOT_SHARED_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    if not (folder / "custom_alpaca_p10.parquet").exists():
        pytest.skip(f"no real text sets at {folder} (set SOT_SHARED_DATA)")
    return folder
