"""What the assets of rivals have in common: they run only when asked, and tell what they took."""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from sot_pipeline.defs.cached_asset import CachedAsset, Stage, cached_asset
from sot_pipeline.defs.rivals import asked, options_of
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.sources import local_model_identity
from sot_pipeline.defs.store import Artifact

SCHEMA = {"sample_id": pl.String, "log_weight": pl.Float64, "rank": pl.Int64}

Uses = Callable[[Settings, str], bool]


def rival(
    *,
    kinds: set[str],
    settings: tuple[str, ...] = (),
    uses: Uses = lambda settings, name: True,
    folder: Callable[[Settings], str | None] = lambda settings: None,
) -> Callable[[Callable[..., Artifact]], CachedAsset]:
    """Declare NAME_weights. `settings`, `uses` and `folder`, a model that may lie in a local one,
    count only while the method is asked for."""

    def declare(function: Callable[..., Artifact]) -> CachedAsset:
        name = function.__name__.removesuffix("_weights")

        def parts(chosen: Settings) -> Mapping[str, Any]:
            if not asked(chosen, name):
                return {"asked": False}
            dumped = chosen.model_dump(mode="json", include={b.partition(".")[0] for b in settings})
            read = {b: dumped[b] if "." not in b else _field(dumped, b) for b in settings}
            return {"asked": True, "options": options_of(chosen, name), **read}

        return cached_asset(
            group="comparison",
            kinds=kinds | {"duckdb"},
            parts_of_settings=parts,
            uses=lambda chosen, read: asked(chosen, name) and uses(chosen, read),
            source=lambda files, chosen: _folder(folder(chosen) if asked(chosen, name) else None),
        )(function)

    return declare


def _folder(name: str | None) -> dict[str, Any]:
    """Contents of a local model's folder; nothing for a model of the hub."""
    files = local_model_identity(name)
    return {} if files is None else {"model": files}


def _field(blocks: Mapping[str, Any], name: str) -> Any:
    block, _, field = name.partition(".")
    return blocks[block][field]


def ranked(
    stage: Stage,
    name: str,
    custom_texts: pl.DataFrame,
    score: Callable[[], Any],
    *,
    compiles: bool = False,
) -> Artifact:
    """The asset's result: what `score` returns, or nothing if nobody asked; then no input is read.

    `compiles`: the first call compiles for these shapes, which is no part of the method's time.
    """
    if not asked(stage.settings, name):
        return Artifact(
            table=pl.DataFrame(schema=SCHEMA),
            document={"asked": False},
            metadata={name: f"not computed: comparison.methods does not name {name}"},
        )
    from sot_pipeline.defs.measured import measured
    from sot_pipeline.selection import ranks

    if compiles:
        score()
    with measured() as cost:
        found = score()
    log_weights, told = found if isinstance(found, tuple) else (found, {})
    numbers = {"seconds": round(cost.seconds, 3), "peak_memory_bytes": cost.peak_bytes, **told}
    table = pl.DataFrame(
        {
            "sample_id": custom_texts["sample_id"],
            "log_weight": log_weights,
            "rank": ranks(log_weights),
        },
        schema=SCHEMA,
    )
    shown = {key: value for key, value in numbers.items() if value is not None}
    return Artifact(table=table, document={"asked": True, **numbers}, metadata=shown)
