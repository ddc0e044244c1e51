"""The text sets' and reviewers' files as observable assets, and the sensor that watches them.

What counts is the content: the data version of `custom_file`, `safe_file`,
`harmful_file` and `review_file` is the identity that the assets which read them are fingerprinted with, so a file that was only touched, or
changed back, is the same file again.
"""

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import dagster as dg

from sot_pipeline.defs import pages
from sot_pipeline.defs.assets import reviews, texts
from sot_pipeline.defs.cached_asset import CachedAsset
from sot_pipeline.defs.dagster_assets import (
    DATA_VERSION_TAG,
    OWNER,
    SENSOR_SECONDS,
    SOURCE_FILES,
    TASKS,
    HomeResource,
    seconds_from_environment,
    source_version,
)
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.instance import UNFINISHED_OR_QUEUED
from sot_pipeline.defs.sources import review_signature, source_signature
from sot_pipeline.errors import InputError

QUIET_SECONDS = seconds_from_environment("SOT_QUIET_SECONDS", 10)

ROLES: Mapping[str, CachedAsset] = {
    "custom": texts.custom_texts,
    "safe": texts.safe_texts,
    "harmful": texts.harmful_texts,
    "review": reviews.review_decisions,
}
DESCRIPTIONS = {
    "custom": "The file or files of fine-tuning rows, as the task file names them.",
    "safe": "The file or files of the safe reference; tasks may share them.",
    "harmful": "The file or files of the harmful reference; tasks may share them.",
    "review": "What people decided about single rows (`sot review`); there need not be any.",
}


def _spec(role: str) -> dg.AssetSpec:
    name, group = SOURCE_FILES[ROLES[role].name], ROLES[role].group
    return dg.AssetSpec(
        name,
        group_name=group,
        kinds={"file"},
        owners=[OWNER],
        description=pages.description(name, DESCRIPTIONS[role]),
        metadata=pages.definition_metadata(name, group),
        tags=pages.tags(name),
    )


with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)  # beta in Dagster 1.13; said once, here

    @dg.multi_observable_source_asset(
        specs=[_spec(role) for role in ROLES], partitions_def=TASKS, can_subset=True
    )
    def text_set_files(
        context: dg.AssetExecutionContext, home: HomeResource
    ) -> Iterator[dg.ObserveResult]:
        """Read a task's files and record their data versions (the UI's "Observe")."""
        for asset in ROLES.values():
            key = dg.AssetKey(SOURCE_FILES[asset.name])
            if key in context.selected_asset_keys:
                try:
                    version = source_version(asset, home.home(), context.partition_key)
                except InputError as error:
                    raise dg.Failure(description=str(error), allow_retries=False) from error
                yield dg.ObserveResult(asset_key=key, data_version=dg.DataVersion(version))


@dataclass(frozen=True)
class Seen:
    """What the sensor remembers of a task's text sets.

    Attributes:
        signatures: Names, sizes and times of the files at the last tick, by role.
        since: When these signatures were first seen, in seconds since 1970.
        settled: The contents under these signatures were read and reported; nothing is to be
            done until a signature changes.
        problems: Why sets could not be read at the last attempt.
    """

    signatures: dict[str, str]
    since: float
    settled: bool = False
    problems: list[str] = field(default_factory=list)


def look(
    home: Home, instance: dg.DagsterInstance, task: str, seen: Seen | None, now: float
) -> tuple[Seen, list[dg.AssetObservation]]:
    """Look at a task's text sets once: what to remember, and what to report.

    All sets must have been quiet, so that two references that are replaced one after the other
    are one change.
    """
    signatures = _signatures(home, task)
    if seen is None or seen.signatures != signatures:
        return Seen(signatures, now), []
    if seen.settled or now - seen.since < QUIET_SECONDS:
        return seen, []
    observations, problems = [], []
    for asset in ROLES.values():
        key = dg.AssetKey(SOURCE_FILES[asset.name])
        try:
            version = source_version(asset, home, task)
        except (InputError, OSError) as error:
            problems.append(str(error))
            continue
        if version != observed_version(instance, key, task):
            tags = {DATA_VERSION_TAG: version}
            observations.append(dg.AssetObservation(key, partition=task, tags=tags))
    after = _signatures(home, task)
    if after != signatures:  # replaced while it was read: what was read may be half of each
        return Seen(after, now), []
    # what cannot be read is tried again at each tick: a mended permission changes no signature
    problems = list(dict.fromkeys(problems))
    return Seen(signatures, seen.since, settled=not problems, problems=problems), observations


def _signatures(home: Home, task: str) -> dict[str, str]:
    try:
        files = home.read_task(task)
        marks = {role: source_signature(files, role) for role in ROLES if role != "review"}
        return marks | {"review": review_signature(files)}
    except (InputError, OSError) as error:
        return {"unreadable": str(error)}


def observed_version(instance: dg.DagsterInstance, key: dg.AssetKey, task: str) -> str | None:
    """Data version of the last observation: the sensor's, the UI's, or that of a run which read
    the files."""
    found = instance.fetch_observations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[task]), limit=1
    ).records
    observation = found[0].asset_observation if found else None
    return observation.tags.get(DATA_VERSION_TAG) if observation else None


def busy_tasks(instance: dg.DagsterInstance) -> set[str]:
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED_OR_QUEUED))
    return {run.tags["dagster/partition"] for run in runs if "dagster/partition" in run.tags}


@dg.sensor(
    minimum_interval_seconds=SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Watches the files of the text sets and of reviewers' decisions. Once a task's sets have been quiet for "
        f"{QUIET_SECONDS} s (SOT_QUIET_SECONDS), they are read; each that changed is recorded "
        "as one observation, which makes `sot_automation` bring the task up to date. "
        "Looks every SOT_SENSOR_SECONDS (30), and waits while the task has an unfinished run."
    ),
)
def source_files(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult:
    place, instance, now = home.home(), context.instance, time.time()
    memory = {task: Seen(**seen) for task, seen in json.loads(context.cursor or "{}").items()}
    remembered: dict[str, Seen] = {}
    observations: list[dg.AssetObservation] = []
    # A change that is reported while a run still reads the old content would count as handled
    # when that run ends: it is kept until the task is idle.
    busy = busy_tasks(instance)
    for task in place.task_names():
        seen = memory.get(task)
        if task in busy:
            remembered |= {task: seen} if seen else {}
            continue
        remembered[task], changed = look(place, instance, task, seen, now)
        observations += changed
        known = seen.problems if seen else []
        for problem in remembered[task].problems:
            if problem not in known:
                context.log.warning(f"task {task!r}: {problem}")
    cursor = json.dumps({task: asdict(seen) for task, seen in remembered.items()})
    return dg.SensorResult(asset_events=observations, cursor=cursor)
