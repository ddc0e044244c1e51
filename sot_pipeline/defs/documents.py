"""A purified set with its documents, written to a folder: rows, card, Croissant, summary."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from sot_pipeline.defs.data_facts import Purified, data_facts
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.provenance import predicate_of, user_name
from sot_pipeline.defs.report_links import ANONYMOUS_REPORT, REPORT
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline.errors import InputError
from sot_pipeline.progress import reporter

_ROWS_PER_REPORT = 500

if TYPE_CHECKING:
    from sot_pipeline.publishing.data_facts import DataFacts, PersonalData
    from sot_pipeline.publishing.provenance import Statement


class DocumentOptions(NamedTuple):
    """How the documents are written.

    Attributes:
        redact_pii: Replace personal data in the rows by its kind.
        who: User that the manifest names; None: `$SOT_WHO` or the login name, "": nobody.
        anonymous: Name nobody, and no folder of this machine.
    """

    redact_pii: bool = False
    who: str | None = None
    anonymous: bool = False

    @property
    def user(self) -> str | None:
        return None if self.anonymous else user_name(self.who)


class WrittenData(NamedTuple):
    purified: Purified
    facts: "DataFacts"
    findings: list[str]


def write_data(
    home: Home,
    task: str,
    folder: Path,
    options: DocumentOptions,
    log: Callable[[str], None] = lambda line: None,
) -> WrittenData:
    """Write a task's kept rows, ledger and rejected rows, and count what the documents tell.

    Raises:
        InputError: the task was not purified, or what it was made from left the store.
    """
    store = Store(home.store)
    export = store.current(task, "purified_export")
    if export is None:
        raise InputError(f"task {task!r} has not been purified: run `sot purify` on it first")
    purified = Purified(store, task, export)
    for name in [*purified.row_files, "ledger.parquet", "rejected.jsonl"]:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(export.directory / name, folder / name)
    personal, num_bytes = _personal_data(folder, purified, redact=options.redact_pii, log=log)
    if options.redact_pii:
        _redact_ledger(folder / "ledger.parquet")
    if options.anonymous:
        _forget_folders(folder / "rejected.jsonl", purified)
    facts = data_facts(purified, folder, personal, num_bytes)
    return WrittenData(purified, facts, _findings(store, purified, facts))


def write_documents(
    folder: Path, facts: "DataFacts", contents: Sequence[tuple[str, str]] = ()
) -> None:
    """Card, Croissant and summary, beside the files that they describe."""
    from sot_pipeline.publishing.croissant import CROISSANT, croissant
    from sot_pipeline.publishing.dataset_card import CARD, dataset_card
    from sot_pipeline.publishing.training_content import SUMMARY, training_content

    (folder / CARD).write_text(dataset_card(facts, contents), encoding="utf-8")
    (folder / CROISSANT).write_text(croissant(facts), encoding="utf-8")
    (folder / SUMMARY).write_text(training_content(facts), encoding="utf-8")


def write_purified(
    home: Home,
    task: str,
    out: Path,
    report: Path,
    options: DocumentOptions,
    log: Callable[[str], None] = lambda line: None,
) -> tuple["Statement", list[str]]:
    """Write what `sot purify --out` promises; the manifest comes last, the folder appears whole.

    Returns:
        The manifest, and sentences that the user should read.

    Raises:
        InputError: the folder holds what would be lost, or the task was not purified.
    """
    from sot_pipeline.publishing.folder import fresh_folder
    from sot_pipeline.publishing.provenance import write_provenance

    with fresh_folder(out) as folder:
        written = write_data(home, task, folder, options, log)
        findings = written.findings + _copy_report(report, folder, anonymous=options.anonymous)
        has_report = (folder / REPORT).exists()
        contents = [(REPORT, "what was found, with figures")] if has_report else []
        write_documents(folder, written.facts, contents)
        predicate = predicate_of(
            home, task, written.facts, [written.purified.export],
            who=options.user, with_paths=not options.anonymous,
        )  # fmt: skip
        return write_provenance(folder, predicate), findings


def _copy_report(report: Path, folder: Path, *, anonymous: bool) -> list[str]:
    """Copy the report, or the one that names nobody; a sentence where there is none of these."""
    source = report.with_name(ANONYMOUS_REPORT) if anonymous else report
    if source.exists():
        shutil.copyfile(source, folder / REPORT)
        return []
    missing = f"{REPORT} is left out: it may name reviewers, and no report without names lies by it"
    return [f"{missing}; purify again to make both"]


def _personal_data(
    folder: Path, purified: Purified, *, redact: bool, log: Callable[[str], None]
) -> tuple["PersonalData", int]:
    """Counts of the files, after replacing what was found if asked to; and the bytes of text."""
    from sot_pipeline import pii
    from sot_pipeline.publishing.data_facts import PersonalData
    from sot_pipeline.texts.row_texts import rewrite_texts

    found, num_rows_with, num_bytes = _count(folder, purified, log)
    remaining = found
    if redact and num_rows_with:
        for name in purified.row_files:
            log(f"replacing personal data in {name}")
            rewrite_texts(folder / name, pii.redact)
        remaining, _, num_bytes = _count(folder, purified, log)
    return PersonalData(found, num_rows_with, redact, remaining), num_bytes


def _count(
    folder: Path, purified: Purified, log: Callable[[str], None]
) -> tuple[dict[str, int], int, int]:
    """Occurrences by kind, rows with any, bytes of text."""
    from sot_pipeline import pii
    from sot_pipeline.texts.row_texts import row_texts

    found: Counter[str] = Counter(dict.fromkeys(pii.PII_KINDS, 0))
    num_rows_with = num_bytes = 0
    progress = reporter("looking for personal data", "rows", log)
    rows = (texts for name in purified.row_files for texts in row_texts(folder / name))
    for done, texts in enumerate(rows, 1):
        counts = pii.count_pii(texts)
        found.update(counts)
        num_rows_with += any(counts.values())
        num_bytes += sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        if done % _ROWS_PER_REPORT == 0:
            progress(done, purified.export.document["num_kept"])
    return dict(found), num_rows_with, num_bytes


def _redact_ledger(path: Path) -> None:
    """Ids of the input are its authors' words; all else in a ledger is computed."""
    from sot_pipeline import pii

    ledger = pl.read_parquet(path)
    pairs = zip(ledger["source_id"], ledger["sample_id"], strict=True)
    ids = [None if one is None else pii.redact_id(one, sample_id) for one, sample_id in pairs]
    ledger.with_columns(source_id=pl.Series(ids, dtype=pl.String)).write_parquet(path)


def _forget_folders(path: Path, purified: Purified) -> None:
    names = {
        file["location"]: file["name"]
        for stored in purified.texts.values()
        for file in stored.document["files"]
        if "://" not in file["location"]
    }
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps(row | {"file": names.get(row["file"], row["file"])}) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _findings(store: Store, purified: Purified, facts: "DataFacts") -> list[str]:
    from sot_pipeline.publishing.data_facts import kind_name

    findings: list[str] = []
    latest: Stored | None = store.current(purified.task, "selected_samples")
    if latest is not None and latest.data_version != purified.selected.data_version:
        findings.append(
            "the purified files are of an earlier selection than the task's latest: run "
            f"`sot purify --task {purified.task}` first"
        )
    personal = facts.personal
    if personal.num_found and not personal.redacted:
        listed = ", ".join(f"{kind_name(n)} {c:,}" for n, c in personal.found.items() if c)
        findings.append(
            f"{personal.num_rows_with:,} kept rows hold what looks like personal data ({listed}); "
            "--redact-pii replaces it"
        )
    return findings
