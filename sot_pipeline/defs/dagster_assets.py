"""From `CachedAsset` to Dagster: partitions, checks, metadata, figures."""

import base64
import os
import re
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import dagster as dg

from sot_pipeline.defs import pages
from sot_pipeline.defs.cached_asset import CachedAsset, CheckSpec
from sot_pipeline.defs.columns import COLUMNS, Column
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.instance import claim_run
from sot_pipeline.defs.materialise import Materialised, materialise
from sot_pipeline.defs.report_links import report_link
from sot_pipeline.defs.state import why_made
from sot_pipeline.defs.store import Check, Store, Stored, fingerprint_of
from sot_pipeline.errors import InputError
from sot_pipeline.progress import listener

TASKS = dg.DynamicPartitionsDefinition(name="task")
OWNER = "team:sot"
DATA_VERSION_TAG = "dagster/data_version"

# asset -> the observable asset of the files it reads
SOURCE_FILES = {
    "custom_texts": "custom_file",
    "safe_texts": "safe_file",
    "harmful_texts": "harmful_file",
    "review_decisions": "review_file",
}
LONG_NUMBER = re.compile(r"(?<![\w.])\d+\.\d{7,}(?:e[+-]?\d+)?(?![\w.])")
# of steps that need a device or the network, which may be back in a minute
MAX_RETRIES, RETRY_SECONDS = 2, 10


def seconds_from_environment(name: str, default: int) -> int:
    """How often sensors look, and how long they wait.

    Raises:
        InputError: the variable is not a whole number of seconds.
    """
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise InputError(f"{name} is {value!r}: expected a whole number of seconds, like {default}")
    return int(value)


SENSOR_SECONDS = seconds_from_environment("SOT_SENSOR_SECONDS", 30)


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


def source_version(asset: CachedAsset, home: Home, task: str) -> str:
    """Data version of the files that a text asset reads; equal contents, equal versions.

    Raises:
        InputError: a file is missing or cannot be read, or the task file is wrong.
    """
    assert asset.source is not None
    settings, _ = home.settings(task)
    return fingerprint_of(asset.source(home.read_task(task), settings))


def dagster_asset(
    asset: CachedAsset, automation_condition: dg.AutomationCondition | None = None
) -> dg.AssetsDefinition:
    """The Dagster asset of a cached asset, partitioned by task."""
    source_file = SOURCE_FILES.get(asset.name)

    @dg.asset(
        name=asset.name,
        group_name=asset.group,
        kinds=set(asset.kinds),
        description=pages.description(asset.name, asset.description),
        metadata=pages.definition_metadata(asset.name, asset.group) | pages.code_metadata(asset),
        tags=pages.tags(asset.name),
        deps=[*asset.inputs, *([source_file] if source_file else [])],
        partitions_def=TASKS,
        code_version=asset.code_version,
        owners=[OWNER],
        automation_condition=automation_condition,
        check_specs=[_check_spec(asset, spec) for spec in asset.checks],
    )
    def compute(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[Any]:
        def log(line: str) -> None:
            context.log.info(line)
            listener().said(asset.name, line)

        claim_run(context.instance, context.run.run_id)
        listener().started(asset.name)
        try:
            result = materialise(asset, home.home(), context.partition_key, log)
        except InputError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        except Exception as error:
            # not a `retry_policy`: that would also repeat a step that a person interrupted
            if "torch" in asset.kinds:
                seconds = RETRY_SECONDS * 2**context.retry_number
                raise dg.RetryRequested(MAX_RETRIES, seconds) from error
            raise
        if source_file:
            version = fingerprint_of(result.stored.manifest["source"])
            yield dg.AssetObservation(
                source_file, partition=context.partition_key, tags={DATA_VERSION_TAG: version}
            )
        rows = result.stored.manifest.get("rows")
        if result.stored.document.get("asked", True):  # else nothing was to be done
            listener().finished(asset.name, result.hit, result.seconds, rows)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(result.stored.data_version),
            metadata=_metadata(result, _because(result, home.home(), context.partition_key)),
            check_results=[_check_result(check) for check in result.stored.checks()],
        )

    return compute


def _check_spec(asset: CachedAsset, spec: CheckSpec) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            spec.name,
            asset=asset.name,
            description=spec.description,
            blocking=spec.blocking,
            partitions_def=TASKS,  # else one task's failed check would block every other task
        )


def _metadata(result: Materialised, because: str) -> dict[str, Any]:
    """In the order of the page: what a person came for, the numbers, how it was made."""
    stored, manifest = result.stored, result.stored.manifest
    metadata: dict[str, Any] = {}
    link = report_link(stored)
    if link is not None:
        metadata["report"] = dg.MetadataValue.md(f"[open the report]({link})")
    for name, png in stored.plots().items():
        encoded = base64.b64encode(png).decode()
        metadata[name] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{encoded})")
    numbers = manifest["metadata"].items()
    metadata |= {name: _shown(value) for name, value in numbers if name != "report"}
    if "rows" in manifest:
        metadata |= _table_metadata(stored)
    if "shape" in manifest:
        metadata["shape"] = " x ".join(f"{size:,}" for size in manifest["shape"])
        metadata["dtype"] = manifest["dtype"]
    return metadata | {
        "because": because,
        "cache": "hit" if result.hit else "miss",
        "computed": dg.MetadataValue.timestamp(datetime.fromisoformat(manifest["created"])),
        "seconds": round(result.seconds, 2),
        "seconds_when_computed": manifest["seconds"],
        "folder": dg.MetadataValue.path(str(stored.directory)),
        "fingerprint": manifest["fingerprint"],
    }


def _shown(value: Any) -> Any:
    """Numbers with as many digits as a person reads."""
    if isinstance(value, str):  # a few numbers in one text
        return LONG_NUMBER.sub(lambda found: f"{float(found[0]):.5g}", value)
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _because(result: Materialised, home: Home, task: str) -> str:
    """Why this version was made: what changed since the task's version before."""
    if result.hit:
        return "nothing changed: found in the store"
    versions = Store(home.store).history(task, result.stored.asset)
    if len(versions) < 2:
        return "made for the first time"
    return ", ".join(why_made(versions[-1], versions[-2]))


def _table_metadata(stored: Stored) -> dict[str, Any]:
    """Rows, the columns in their declared order with what they mean, and where they come from."""
    declared, types = COLUMNS.get(stored.asset, {}), stored.manifest["columns"]
    names = [name for name in declared if name in types]
    names += [name for name in types if name not in declared]
    columns = [
        dg.TableColumn(
            name, types[name], declared[name].described if name in declared else "set by a defence"
        )
        for name in names
    ]
    metadata: dict[str, Any] = {
        "dagster/row_count": stored.manifest["rows"],
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }
    sources = {name: _sources(declared[name]) for name in names if name in declared}
    if any(sources.values()):
        metadata["dagster/column_lineage"] = dg.TableColumnLineage(
            {name: deps for name, deps in sources.items() if deps}
        )
    return metadata


def _sources(column: Column) -> list[dg.TableColumnDep]:
    return [dg.TableColumnDep(dg.AssetKey(asset), name) for asset, name in column.sources()]


def _check_result(check: Check) -> dg.AssetCheckResult:
    severity = dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=check.passed,
        severity=severity,
        description=check.description,
        metadata={name: _shown(value) for name, value in check.values.items()},
    )
