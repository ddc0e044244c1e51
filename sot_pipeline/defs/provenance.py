"""Where a result comes from: sources, settings, versions, and the graph of artefacts behind it."""

import getpass
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sot_pipeline import __version__
from sot_pipeline.defs.data_facts import version_of
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.store import Store, Stored

if TYPE_CHECKING:
    from sot_pipeline.publishing.data_facts import DataFacts, SourceFile
    from sot_pipeline.publishing.provenance import Artefact, Dependency, Predicate

WHO = "SOT_WHO"


def user_name(given: str | None = None) -> str | None:
    """Who a manifest names: what was given, else `$SOT_WHO`, else the login name; an empty one
    names nobody."""
    if given is not None:
        return given or None
    if WHO in os.environ:
        return os.environ[WHO] or None
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return None


def predicate_of(
    home: Home,
    task: str,
    facts: "DataFacts",
    roots: Iterable[Stored],
    *,
    who: str | None,
    with_paths: bool = True,
    export: Mapping[str, Any] | None = None,
) -> "Predicate":
    """All that a manifest says beside the hashes of the files.

    Args:
        roots: Artefacts whose content lies in the folder.
        who: Its user; None names nobody.
        with_paths: Tell folders of this machine; False leaves file names.
        export: What else was written.
    """
    from sot_pipeline.publishing.provenance import (
        BUILD_TYPE,
        PACKAGE,
        BuildDefinition,
        Builder,
        DataCounts,
        ExternalParameters,
        InternalParameters,
        Metadata,
        PersonalDataCounts,
        Predicate,
        RunDetails,
    )

    settings, origin = home.settings(task)
    stated = settings.model_dump(mode="json")
    personal = facts.personal
    return Predicate(
        build_definition=BuildDefinition(
            build_type=BUILD_TYPE,
            external_parameters=ExternalParameters(
                task=task,
                settings=stated if with_paths else _without_folders(stated),
                settings_origin={
                    key: where if with_paths else os.path.basename(where)
                    for key, where in origin.items()
                    if where != "default"
                },
            ),
            internal_parameters=InternalParameters(
                artefacts=_graph(Store(home.store), task, roots)
            ),
            resolved_dependencies=[_dependency(s, with_paths=with_paths) for s in facts.sources],
        ),
        run_details=RunDetails(
            builder=Builder(
                id=f"{PACKAGE}@{__version__}",
                version={"sot_pipeline": __version__, **facts.libraries},
            ),
            metadata=Metadata(
                finished_on=datetime.now(UTC).isoformat(timespec="seconds"), sot_who=who
            ),
        ),
        sot_data=DataCounts(
            data_fingerprint=facts.data_fingerprint,
            row_files={file.name: file.num_rows for file in facts.files},
            rows_read=facts.num_read,
            rows_rejected=facts.num_rejected,
            rows_kept=facts.num_kept,
            rows_removed=facts.num_removed,
            rows_as_read=not personal.redacted,
            personal_data=PersonalDataCounts(
                found=dict(personal.found),
                rows_with=personal.num_rows_with,
                redacted=personal.redacted,
                remaining=dict(personal.remaining),
            ),
        ),
        sot_export=dict(export or {}),
    )


def _dependency(source: "SourceFile", *, with_paths: bool) -> "Dependency":
    from sot_pipeline.publishing.provenance import Dependency, Digest, InputFacts

    if source.is_remote:
        uri = source.location
    else:
        uri = Path(source.location).absolute().as_uri() if with_paths else None
    return Dependency(
        name=source.name,
        uri=uri,
        digest=Digest(sha256=source.sha256),
        annotations=InputFacts(
            role=source.role,  # pyright: ignore[reportArgumentType]
            bytes=source.num_bytes,
            rows_read=source.num_read,
            rows_rejected=source.num_rejected,
            licences=dict(source.licences),
            licence_from=source.licence_from,
            revision=source.revision,
            format=source.format,
        ),
    )


def _graph(store: Store, task: str, roots: Iterable[Stored]) -> "dict[str, Artefact]":
    """Every artefact behind the roots that is still in the store, each with what it was made of."""
    from sot_pipeline.publishing.provenance import Artefact

    graph: dict[str, Artefact] = {}
    waiting = list(roots)
    while waiting:
        stored = waiting.pop()
        if _name(stored) in graph:
            continue
        inputs: dict[str, str] = {}
        for asset, version in stored.manifest["inputs"].items():
            found = version_of(store, task, asset, version)
            inputs[asset] = _name(found) if found is not None else f"{asset}/{version}"
            waiting += [found] if found is not None else []
        graph[_name(stored)] = Artefact(
            fingerprint=stored.fingerprint,
            data_version=stored.data_version,
            code_version=stored.manifest["code_version"],
            created=stored.manifest["created"],
            inputs=inputs,
        )
    return dict(sorted(graph.items()))


def _name(stored: Stored) -> str:
    return f"{stored.asset}/{stored.fingerprint}"


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str) and os.path.isabs(value):
        return os.path.basename(value)
    return value
