"""From `CachedAsset` to Dagster: partitions, checks, metadata, figures."""

import base64
from collections.abc import Iterator
from typing import Any

import dagster as dg

from sot_pipeline.defs.cached_asset import CachedAsset
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.materialise import Materialised, materialise
from sot_pipeline.defs.store import Check
from sot_pipeline.errors import InputError
from sot_pipeline.progress import listener

TASKS = dg.DynamicPartitionsDefinition(name="task")
OWNER = "team:sot"


class HomeResource(dg.ConfigurableResource):
    """The folder that holds tasks, store and history (default: `data/` or `$SOT_HOME`)."""

    root: str | None = None

    def home(self) -> Home:
        return Home(self.root)


class NoReturnValues(dg.IOManager):
    """Assets keep their results in the store; a value handed to Dagster would be pickled."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        if obj is not None:
            raise TypeError(f"{context.step_key} returned a value; write it to the store")

    def load_input(self, context: dg.InputContext) -> object:
        raise TypeError("inputs are read from the store, not from Dagster")


def dagster_asset(asset: CachedAsset) -> dg.AssetsDefinition:
    """The Dagster asset of a cached asset, partitioned by task."""

    @dg.asset(
        name=asset.name,
        group_name=asset.group,
        kinds=set(asset.kinds),
        description=asset.description,
        deps=list(asset.inputs),
        partitions_def=TASKS,
        code_version=asset.code_version,
        owners=[OWNER],
        check_specs=[
            dg.AssetCheckSpec(
                spec.name, asset=asset.name, description=spec.description, blocking=spec.blocking
            )
            for spec in asset.checks
        ],
    )
    def compute(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[Any]:
        def log(line: str) -> None:
            context.log.info(line)
            listener().said(asset.name, line)

        listener().started(asset.name)
        try:
            result = materialise(asset, home.home(), context.partition_key, log)
        except InputError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        rows = result.stored.manifest.get("rows")
        listener().finished(asset.name, result.hit, result.seconds, rows)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(result.stored.data_version),
            metadata=_metadata(result),
            check_results=[_check_result(check) for check in result.stored.checks()],
        )

    return compute


def _metadata(result: Materialised) -> dict[str, Any]:
    stored, manifest = result.stored, result.stored.manifest
    metadata: dict[str, Any] = {
        "cache": "hit" if result.hit else "miss",
        "seconds": round(result.seconds, 2),
        "seconds_when_computed": manifest["seconds"],
        "fingerprint": manifest["fingerprint"],
        "folder": dg.MetadataValue.path(str(stored.directory)),
        **manifest["metadata"],
    }
    if "rows" in manifest:
        metadata["dagster/row_count"] = manifest["rows"]
        metadata["dagster/column_schema"] = dg.TableSchema(
            columns=[dg.TableColumn(name, kind) for name, kind in manifest["columns"].items()]
        )
    if "shape" in manifest:
        metadata["shape"] = " x ".join(f"{size:,}" for size in manifest["shape"])
        metadata["dtype"] = manifest["dtype"]
    for name, png in stored.plots().items():
        encoded = base64.b64encode(png).decode()
        metadata[name] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{encoded})")
    return metadata


def _check_result(check: Check) -> dg.AssetCheckResult:
    severity = dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=check.passed,
        severity=severity,
        description=check.description,
        metadata=dict(check.values),
    )
