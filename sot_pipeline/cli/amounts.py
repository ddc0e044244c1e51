"""Times and sizes as people read them."""

from collections.abc import Sequence


def minutes_between(seconds: Sequence[float]) -> str:
    """An interval of seconds."""
    return f"{minutes(seconds[0])} to {minutes(seconds[1])}"


def minutes(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{seconds / 3600:.1f} h"


def size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
