"""Whether each asset of a task is up to date and, if not, because of what. Nothing is computed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sot_pipeline.defs.cached_asset import CachedAsset
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.materialise import plan
from sot_pipeline.defs.retention import running
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline.errors import InputError

State = Literal["current", "stale", "missing", "running"]


@dataclass(frozen=True)
class AssetState:
    """
    Attributes:
        because: Own reasons of a stale asset, such as "its source changed".
        after: The assets before it in which the reasons lie, if it has none of its own or they
            have some too.
        stored: The task's version of it, whatever its state.
    """

    asset: str
    state: State
    because: tuple[str, ...]
    after: tuple[str, ...]
    stored: Stored | None


def asset_states(
    assets: Iterable[CachedAsset], home: Home, store: Store, task: str
) -> list[AssetState]:
    """The state of each asset of a task, inputs before what is made of them."""
    settings, _ = home.settings(task)
    at_work = {record["asset"] for record in running(store) if record["task"] == task}
    states: dict[str, AssetState] = {}
    for asset in _inputs_first(assets):
        stored = store.current(task, asset.name)
        outdated = [
            states[name]
            for name in asset.inputs
            if asset.uses(settings, name) and _holds_back(asset, states.get(name))
        ]
        own = () if stored is None else _own_reasons(asset, home, store, task, stored)
        state: State = "current"
        if asset.name in at_work:
            state = "running"
        elif stored is None:
            state = "missing"
        elif own or outdated:
            state = "stale"
        roots = [root for before in outdated for root in (before.after or (before.asset,))]
        states[asset.name] = AssetState(asset.name, state, own, tuple(dict.fromkeys(roots)), stored)
    return list(states.values())


def _holds_back(asset: CachedAsset, before: AssetState | None) -> bool:
    if before is None or before.state == "current":
        return False
    # an optional input that a task does not have holds nothing back
    return not (asset.inputs[before.asset] == Stored | None and before.stored is None)


def _own_reasons(
    asset: CachedAsset, home: Home, store: Store, task: str, stored: Stored
) -> tuple[str, ...]:
    try:
        planned = plan(asset, home, store, task)
    except InputError as error:
        return (str(error),)
    if planned.fingerprint == stored.fingerprint:
        return ()
    return _differences(planned.parts, stored.manifest)


def why_made(stored: Stored, earlier: Stored) -> tuple[str, ...]:
    """What changed between two versions of an asset, such as "harmful_texts changed"."""
    manifest = stored.manifest
    parts = {name: manifest[name] for name in ("source", "settings", "inputs")}
    return _differences({**parts, "code": manifest["code_version"]}, earlier.manifest)


def _differences(parts: Mapping[str, Any], manifest: Mapping[str, Any]) -> tuple[str, ...]:
    reasons = []
    if parts["code"] != manifest["code_version"]:
        reasons.append("its code changed")
    if parts["source"] != manifest["source"]:
        reasons.append("its source changed")
    for name in _differing(parts["settings"], manifest["settings"]):
        now, before = parts["settings"].get(name), manifest["settings"].get(name)
        fields = (
            _differing(now, before) if isinstance(now, dict) and isinstance(before, dict) else []
        )
        reasons += [f"setting {name}.{field} changed" for field in fields] or [
            f"setting {name} changed"
        ]
    reasons += [f"{name} changed" for name in _differing(parts["inputs"], manifest["inputs"])]
    return tuple(reasons) or ("what it is compared with changed",)


def _differing(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    return [name for name in {**now, **before} if now.get(name) != before.get(name)]


def _inputs_first(assets: Iterable[CachedAsset]) -> Iterable[CachedAsset]:
    waiting = {asset.name: asset for asset in assets}
    while waiting:
        ready = next(a for a in waiting.values() if not a.inputs.keys() & waiting.keys())
        yield waiting.pop(ready.name)
