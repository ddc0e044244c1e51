"""Double precision for the tests that compare with an oracle."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def float64() -> Iterator[None]:
    """Lets jax compute in float64, in this test only."""
    with jax.enable_x64(True):
        yield
