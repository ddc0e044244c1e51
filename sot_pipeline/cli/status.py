"""`sot status`: what each task has, whether it is up to date, and if not, why."""

from collections import Counter
from pathlib import Path
from typing import Any

from sot_pipeline.cli.output import DONE, print_json, table
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.state import AssetState, asset_states
from sot_pipeline.defs.store import Store


def run_status(root: Path | None, task: str | None, as_json: bool) -> int:
    from sot_pipeline.definitions import ASSETS

    home = Home(root)
    store = Store(home.store)
    if task is not None:
        home.read_task(task)
    names = home.task_names() if task is None else [task]
    states = {name: asset_states(ASSETS, home, store, name) for name in names}
    if as_json:
        tasks = {
            name: {state.asset: _document(state) for state in of_task}
            for name, of_task in states.items()
        }
        print_json({"home": str(home.root), "tasks": tasks})
        return DONE
    if not names:
        print(f"no tasks in {home.root}; begin with `sot demo` or `sot purify`")
    for name, of_task in states.items():
        _print_task(name, [state for state in of_task if not _is_unasked(state)])
    return DONE


def _is_unasked(state: AssetState) -> bool:
    """Of a comparison or an experiment that nobody asked for; --json has them too."""
    from sot_pipeline.definitions import COMPARISON, EXPERIMENTS, RIVALS

    optional = {asset.name for asset in (*RIVALS, *COMPARISON, *EXPERIMENTS.values())}
    if state.asset not in optional:
        return False
    return state.stored is None or state.stored.document.get("asked") is False


def _document(state: AssetState) -> dict[str, Any]:
    document: dict[str, Any] = {
        "state": state.state,
        "because": list(state.because),
        "after": list(state.after),
    }
    if state.stored is None:
        return document
    manifest = state.stored.manifest
    return document | {
        "fingerprint": state.stored.fingerprint,
        "created": manifest["created"],
        "seconds": manifest["seconds"],
        "rows": manifest.get("rows"),
        "shape": manifest.get("shape"),
        "folder": str(state.stored.directory),
        "failed_checks": [
            f"{check.name}: {check.description}"
            for check in state.stored.checks()
            if not check.passed
        ],
    }


def _print_task(name: str, states: list[AssetState]) -> None:
    documents = {state.asset: _document(state) for state in states}
    if not any(state.stored for state in states):
        print(f"{name}: nothing materialised yet")
        return
    table(
        f"{name}: {_summary(states)}",
        ["asset", "state", "rows or shape", "made", "seconds", "because"],
        [
            [
                asset,
                info["state"],
                _size(info),
                info.get("created", "")[:16].replace("T", " "),
                f"{info['seconds']:.1f}" if "seconds" in info else "",
                "; ".join(info["because"]) or _after(info),
            ]
            for asset, info in documents.items()
        ],
    )
    for asset, info in documents.items():
        for check in info.get("failed_checks", []):
            print(f"  failed check of {asset}: {check}")
    print()


def _summary(states: list[AssetState]) -> str:
    counts = Counter(state.state for state in states)
    counted = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    causes = [
        f"{s.asset}: {', '.join(s.because)}" for s in states if s.state == "stale" and s.because
    ]
    return counted + (f" ({causes[0]}" + (" ...)" if causes[1:] else ")") if causes else "")


def _after(info: dict[str, Any]) -> str:
    return f"after {', '.join(info['after'])}" if info["state"] == "stale" else ""


def _size(info: dict[str, Any]) -> str:
    if info.get("shape"):
        return " x ".join(f"{size:,}" for size in info["shape"])
    return f"{info['rows']:,}" if info.get("rows") is not None else ""
