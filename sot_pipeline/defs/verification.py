"""Whether a folder of results is still what was written, and agrees with where it came from.

The folder may be anybody's: nothing outside of it is opened but input files that the manifest names,
no link is followed in it, and nothing is read before its size is known.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from sot_pipeline.defs.agreement import Problem, disagreements, shown
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.store import Store, file_sha256
from sot_pipeline.errors import InputError

if TYPE_CHECKING:
    from sot_pipeline.publishing.provenance import Dependency, Statement


class Verdict(NamedTuple):
    """What was compared, and every difference.

    Attributes:
        num_files: Files whose hash is as written.
        num_inputs: Input files that are on this machine and as they were.
        inputs_elsewhere: Names of input files that could not be compared.
        num_artefacts: Artefacts that the store holds as stated; None where no store was asked.
    """

    folder: str
    problems: list[Problem]
    manifest_hash: str
    num_files: int
    num_inputs: int
    inputs_elsewhere: list[str]
    num_artefacts: int | None

    @property
    def checked(self) -> str:
        parts = [f"{self.num_files:,} files as written"]
        if self.num_inputs or not self.inputs_elsewhere:
            parts.append(f"{self.num_inputs:,} inputs as they were")
        if self.inputs_elsewhere:
            parts.append(f"{len(self.inputs_elsewhere):,} inputs not on this machine")
        if self.num_artefacts is not None:
            parts.append(f"{self.num_artefacts:,} artefacts of the store as stated")
        return ", ".join(parts)

    def as_document(self) -> dict[str, Any]:
        problems = [problem._asdict() for problem in self.problems]
        return {"well": not problems} | self._asdict() | {"problems": problems}


def verify_folder(
    folder: Path,
    *,
    home: Home | None = None,
    require_inputs: bool = False,
    expected_hash: str | None = None,
) -> Verdict:
    """Compare a folder with its manifest.

    Args:
        home: Whose store must hold the artefacts; None asks none.
        require_inputs: Whether an input that is not on this machine is a difference.
        expected_hash: sha256 that the manifest must have.

    Raises:
        InputError: no manifest, or one that cannot be read or leads out of the folder.
    """
    from sot_pipeline.publishing.provenance import MANIFEST, read_provenance

    found, links = _walk(folder)
    content = _manifest(folder, found)
    statement = read_provenance(content, str(folder / MANIFEST))
    manifest_hash = file_sha256(found[MANIFEST])
    problems = [Problem("link", name, f"{shown(name)} is no regular file") for name in links]
    problems += _manifest_problems(found, content, manifest_hash, expected_hash)
    problems += (of_files := list(_file_problems(found, statement)))
    sound = set(statement.sizes_and_hashes) - {problem.file for problem in of_files}
    problems += disagreements(found, statement, sound)
    of_inputs, elsewhere = _input_problems(statement, require=require_inputs)
    problems += of_inputs
    of_store = [] if home is None else list(_store_problems(Store(home.store), statement))
    num_inputs = len(statement.predicate.build_definition.resolved_dependencies)
    changed_inputs = [p for p in of_inputs if p.file not in elsewhere]
    num_artefacts = len(statement.predicate.build_definition.internal_parameters.artefacts)
    return Verdict(
        str(folder.resolve()),
        problems + of_store,
        manifest_hash,
        len(sound),
        num_inputs - len(elsewhere) - len(changed_inputs),
        elsewhere,
        None if home is None else num_artefacts - len({p.file for p in of_store}),
    )


def _walk(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Regular files by name, and the names of all else that is no folder; follows no link."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is no folder; expected what `sot export` or `sot purify --out` wrote"
        )
    found: dict[str, Path] = {}
    others: list[str] = []
    for parent, folders, files in os.walk(folder, followlinks=False):
        for name in [*folders, *files]:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found[path.relative_to(folder).as_posix()] = path
            elif not stat.S_ISDIR(mode):
                others.append(path.relative_to(folder).as_posix())
    return found, sorted(others)


def _manifest(folder: Path, found: Mapping[str, Path]) -> bytes:
    from sot_pipeline.publishing.provenance import MANIFEST, MAX_BYTES

    path = found.get(MANIFEST)
    if path is None:
        raise InputError(
            f"{folder}: holds no {MANIFEST}; expected a folder that `sot export` or `sot purify "
            "--out` wrote"
        )
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(
            f"{path}: has {size:,} bytes, expected {MAX_BYTES:,} at most: it is no manifest of "
            "this project. Take the folder from its source again."
        )
    return path.read_bytes()


def _manifest_problems(
    found: Mapping[str, Path], content: bytes, manifest_hash: str, expected: str | None
) -> Iterator[Problem]:
    from sot_pipeline.publishing.provenance import MANIFEST, MANIFEST_HASH, hash_line

    if expected is not None and expected.lower() != manifest_hash:
        yield Problem("changed", MANIFEST, f"{MANIFEST} does not have the expected hash {expected}")
    if MANIFEST_HASH not in found:
        yield Problem("missing", MANIFEST_HASH, f"{MANIFEST_HASH} is missing")
        return
    written = hash_line(content)
    path = found[MANIFEST_HASH]
    if path.stat().st_size != len(written) or path.read_bytes() != written:
        yield Problem(
            "changed",
            MANIFEST,
            f"{MANIFEST} and {MANIFEST_HASH} do not fit together: one of them was changed",
        )


def _file_problems(found: Mapping[str, Path], statement: "Statement") -> Iterator[Problem]:
    from sot_pipeline.publishing.provenance import MANIFEST, MANIFEST_HASH

    written = statement.sizes_and_hashes
    for name, (num_bytes, sha256) in written.items():
        path = found.get(name)
        if path is None:
            yield Problem("missing", name, f"{shown(name)} is missing")
        elif path.stat().st_size != num_bytes:
            size = path.stat().st_size
            yield Problem(
                "changed", name, f"{shown(name)} has {size:,} bytes, {num_bytes:,} were written"
            )
        elif file_sha256(path) != sha256:
            yield Problem("changed", name, f"{shown(name)} has another content than was written")
    for name in sorted(found.keys() - written.keys() - {MANIFEST, MANIFEST_HASH}):
        yield Problem("unknown", name, f"{shown(name)} was not written by the export")


def _input_problems(statement: "Statement", *, require: bool) -> tuple[list[Problem], list[str]]:
    problems: list[Problem] = []
    elsewhere: list[str] = []
    for source in statement.predicate.build_definition.resolved_dependencies:
        path = _local_path(source)
        if path is None or not path.exists():
            elsewhere.append(source.name)
            if require:
                sentence = f"input {shown(source.name)} is not on this machine"
                problems.append(Problem("input", source.name, sentence))
        elif not _is_same(path, source):
            sentence = f"input {shown(str(path))} is not what it was"
            problems.append(Problem("input", source.name, sentence))
    return problems, elsewhere


def _local_path(source: "Dependency") -> Path | None:
    if source.uri is None:
        return None
    address = urlsplit(source.uri)
    if address.scheme != "file" or address.netloc or "\0" in (path := unquote(address.path)):
        return None
    return Path(path)


def _is_same(path: Path, source: "Dependency") -> bool:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size != source.annotations.bytes:
        return False
    return file_sha256(path) == source.digest.sha256


def _store_problems(store: Store, statement: "Statement") -> Iterator[Problem]:
    artefacts = statement.predicate.build_definition.internal_parameters.artefacts
    for name, stated in artefacts.items():
        asset, _, fingerprint = name.partition("/")
        stored = store.find(asset, fingerprint)
        if stored is None:
            yield Problem("store", name, f"{name} is not in the store {store.root}")
        elif (stored.data_version, stored.manifest["code_version"]) != (
            stated.data_version,
            stated.code_version,
        ):
            yield Problem("store", name, f"{name} has another version in the store")
        elif damage := stored.damage():
            yield Problem("store", name, f"{name}: {damage[0]}")
