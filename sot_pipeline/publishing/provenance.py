"""What a folder of results was made from, and the hash of every file in it: `provenance.json`.

The layout is an in-toto statement (v1) with a SLSA provenance predicate (v1), because tools that
sign, store and check attestations (cosign, witness, in-toto) read exactly that:

    _type, subject          every file of the folder but this one, with sha256 and size
    predicateType           https://slsa.dev/provenance/v1
    predicate
      buildDefinition
        externalParameters  task, settings and where each comes from
        internalParameters  the artefacts: fingerprint, code version, and what each was made of
        resolvedDependencies every input file, with role, licence, rows, sha256
      runDetails            version of this project and its libraries, when, and who
      sot_data              counts: rows read, kept, removed; personal data; licences

`json_schema` gives the JSON Schema. `provenance.json.sha256` beside it holds the manifest's own hash.
A hash tells that something changed, not who made it: for that, sign the manifest.

Source: in-toto.io/Statement/v1 and slsa.dev/provenance/v1 (fields beyond theirs carry the prefix
`sot_`, as the latter asks).
"""

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from sot_pipeline.errors import InputError

MANIFEST = "provenance.json"
MANIFEST_HASH = "provenance.json.sha256"
PACKAGE = "pkg:pypi/sot-pipeline"
BUILD_TYPE = f"{PACKAGE}#provenance/v1"
MAX_BYTES = 64 * 2**20

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    """Unknown fields are ignored, as SLSA asks of readers."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )


class Digest(_Part):
    sha256: Sha256


class FileSize(_Part):
    bytes: Count


class Subject(_Part):
    """A file of the folder; `name` is its path in it, with `/`."""

    name: Annotated[str, Field(min_length=1, max_length=4096)]
    digest: Digest
    annotations: FileSize


class InputFacts(_Part):
    role: Literal["custom", "safe", "harmful"]
    bytes: Count
    rows_read: Count
    rows_rejected: Count
    licences: dict[str, Count]
    licence_from: str = ""
    revision: str | None = None
    format: str = ""


class Dependency(_Part):
    """An input file; `uri` is `file:///...`, an address, or null where it is not to be told."""

    name: str
    uri: str | None = None
    digest: Digest
    annotations: InputFacts


class Artefact(_Part):
    """One node of the graph; `inputs` are the names of others, by asset."""

    fingerprint: str
    data_version: str
    code_version: str
    created: str
    inputs: dict[str, str]


class ExternalParameters(_Part):
    task: str
    settings: dict[str, dict[str, Any]]
    settings_origin: dict[str, str] = {}


ArtefactName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}/[0-9a-f]{32}$")]


class InternalParameters(_Part):
    """Artefacts by asset and fingerprint."""

    artefacts: dict[ArtefactName, Artefact]


class BuildDefinition(_Part):
    build_type: str
    external_parameters: ExternalParameters
    internal_parameters: InternalParameters
    resolved_dependencies: list[Dependency]


class Builder(_Part):
    id: str
    version: dict[str, str]


class Metadata(_Part):
    """`sot_who` is null where nobody is to be named."""

    finished_on: str
    sot_who: str | None = Field(default=None, alias="sot_who")


class RunDetails(_Part):
    builder: Builder
    metadata: Metadata


class PersonalDataCounts(_Part):
    found: dict[str, Count]
    rows_with: Count
    redacted: bool
    remaining: dict[str, Count]


class DataCounts(_Part):
    """`row_files` are the files of kept rows; `rows_as_read`: kept rows are the source's bytes."""

    data_fingerprint: str
    row_files: dict[str, Count]
    rows_read: Count
    rows_rejected: Count
    rows_kept: Count
    rows_removed: Count
    rows_as_read: bool
    personal_data: PersonalDataCounts


class Predicate(_Part):
    build_definition: BuildDefinition
    run_details: RunDetails
    sot_data: DataCounts = Field(alias="sot_data")
    sot_export: dict[str, Any] = Field(default_factory=dict, alias="sot_export")


class Statement(_Part):
    """The whole of `provenance.json`."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(
        default="https://in-toto.io/Statement/v1", alias="_type"
    )
    subject: Annotated[list[Subject], Field(min_length=1)]
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = "https://slsa.dev/provenance/v1"
    predicate: Predicate

    @property
    def sizes_and_hashes(self) -> dict[str, tuple[int, str]]:
        return {one.name: (one.annotations.bytes, one.digest.sha256) for one in self.subject}


def json_schema() -> dict[str, Any]:
    """JSON Schema of `provenance.json`."""
    return Statement.model_json_schema(by_alias=True)


def write_provenance(folder: Path, predicate: Predicate) -> Statement:
    """Write the manifest of a folder, and its own hash beside it; all other files are there."""
    statement = Statement(subject=_subjects(folder), predicate=predicate)
    document = statement.model_dump(mode="json", by_alias=True)
    content = (json.dumps(document, indent=1) + "\n").encode()
    (folder / MANIFEST).write_bytes(content)
    (folder / MANIFEST_HASH).write_bytes(hash_line(content))
    return statement


def hash_line(content: bytes) -> bytes:
    """What `sha256sum provenance.json` prints."""
    return f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n".encode()


def _subjects(folder: Path) -> list[Subject]:
    return [
        Subject(
            name=path.relative_to(folder).as_posix(),
            digest=Digest(sha256=sha256_of(path)),
            annotations=FileSize(bytes=path.stat().st_size),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() not in (MANIFEST, MANIFEST_HASH)
    ]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_provenance(content: bytes, name: str = MANIFEST) -> Statement:
    """Read a manifest that anybody may have written.

    Raises:
        InputError: not JSON, not of this layout, or naming files outside of its folder.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{name}: is not JSON ({_short(error)}); expected what `sot export` wrote. Take the "
            "folder from its source again."
        ) from error
    try:
        statement = Statement.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:200] or "the whole"
        raise InputError(
            f"{name}: is no manifest of this project ({where}: {first['msg'][:200]}); expected an "
            "in-toto statement as `sot export` writes it"
        ) from error
    _check_names(statement, name)
    return statement


def _check_names(statement: Statement, name: str) -> None:
    seen: set[str] = set()
    for subject in statement.subject:
        path = PurePosixPath(subject.name)
        parts = subject.name.split("/")
        if path.is_absolute() or {"..", ".", ""} & set(parts) or "\0" in subject.name:
            raise InputError(
                f"{name}: lists {subject.name[:100]!r}, which is no path inside the folder: the "
                "manifest was forged or damaged. Nothing was read by it."
            )
        if subject.name in seen or subject.name in (MANIFEST, MANIFEST_HASH):
            raise InputError(
                f"{name}: lists {subject.name[:100]!r} twice or lists itself: the manifest was "
                "forged or damaged"
            )
        seen.add(subject.name)


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
