"""Where the UI that `sot ui` starts shows a report of the store."""

from sot_pipeline.defs.home import Home
from sot_pipeline.defs.store import Store, Stored

REPORT = "report.html"
ANONYMOUS_REPORT = "report.anonymous.html"  # beside it: what `--anonymous` publishes in its place
REPORT_ADDRESS = "/sot/report/{asset}/{fingerprint}"
REPORT_ASSETS = ("safety_report", "purification_report")  # the one that says more first


def report_link(stored: Stored) -> str | None:
    """Address of an artefact's report below the UI's own; None where it has none.

    It names the artefact itself: the page of an earlier materialisation opens the report of then.
    """
    if not (stored.directory / REPORT).exists():
        return None
    return REPORT_ADDRESS.format(asset=stored.asset, fingerprint=stored.fingerprint)


def newest_report(home: Home, task: str) -> str | None:
    """Address of the report of a task that was made last."""
    store = Store(home.store)
    made = [stored for name in REPORT_ASSETS if (stored := store.current(task, name)) is not None]
    newest = max(made, key=lambda stored: stored.manifest["created"], default=None)
    return None if newest is None else report_link(newest)
