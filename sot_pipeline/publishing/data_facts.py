"""What the documents of a purified set say: every value was recorded or counted, none is made up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sot_pipeline.publishing.licences import NOT_STATED

PAPER = "Safety Optimal Transport, ACL 2026, arXiv 2601.07200"
PAPER_ADDRESS = "https://arxiv.org/abs/2601.07200"


_KINDS = {
    "email": "e-mail address",
    "phone": "telephone number",
    "ip_address": "IP address",
    "credit_card": "payment card number",
    "iban": "IBAN",
    "us_ssn": "US social security number",
}


def kind_name(kind: str) -> str:
    """A kind of personal data for people."""
    return _KINDS.get(kind, kind.replace("_", " "))


class Column(NamedTuple):
    """A column of a written file; `kind` is "text", "integer", "number", "boolean", "object" (then
    with `members`) or "other"."""

    name: str
    kind: str
    is_list: bool = False
    members: tuple["Column", ...] = ()
    in_every_row: bool = True


class DataFile(NamedTuple):
    """A file of purified rows as it was written.

    Attributes:
        name: Its path below the folder, with `/`.
        file_type: Such as "jsonl" or "csv.gz".
        reading: What a reader must be told: `sep` of a CSV file, `field` of a JSON object.
    """

    name: str
    file_type: str
    num_rows: int
    num_bytes: int
    sha256: str
    columns: tuple[Column, ...]
    reading: Mapping[str, str] = {}


class SourceFile(NamedTuple):
    """A file that was read.

    Attributes:
        role: "custom" (its rows are what is published), "safe" or "harmful" (references).
        location: URL, or absolute path on the machine where it was read.
        licences: Rows per licence as stated, `NOT_STATED` where none is.
        licence_from: "task file", "dataset card", "column", or "".
    """

    role: str
    name: str
    location: str
    sha256: str
    num_bytes: int
    num_read: int
    num_rejected: int
    licences: Mapping[str, int]
    licence_from: str = ""
    revision: str | None = None
    format: str = ""
    file_type: str = ""

    @property
    def is_remote(self) -> bool:
        return "://" in self.location

    @property
    def shown(self) -> str:
        """What may be published: the address, or the name alone of a file of some machine."""
        return self.location if self.is_remote else self.name


class CategoryCount(NamedTuple):
    category: str
    num_read: int
    num_removed: int


class PersonalData(NamedTuple):
    """Personal data that patterns find in the text values of the kept rows.

    Attributes:
        found: Occurrences per kind before anything was replaced.
        num_rows_with: Kept rows with one or more.
        redacted: Whether the finds were replaced in what was written.
        remaining: As `found`, counted again in what was written; equal to it without redaction.
    """

    found: Mapping[str, int]
    num_rows_with: int
    redacted: bool
    remaining: Mapping[str, int]

    @property
    def num_found(self) -> int:
        return sum(self.found.values())


@dataclass(frozen=True)
class DataFacts:
    """What is known of a purified set.

    Attributes:
        created: Day of the purification, as "2026-01-31".
        data_fingerprint: Of the purification: changes with any row, setting or code that decides.
        num_read, num_rejected, num_kept, num_removed: Rows of the custom set; read = rejected +
            kept + removed.
        num_text_bytes: Of all text values in the kept rows, UTF-8.
        rejected_reasons: Why rows could not be read.
        categories: Of the custom rows by the category that the input states; empty if it has none.
        harmful_categories: Removed rows by the category of the harmful rows they resemble; empty
            if the reference states none.
        decisions: How often reviewers overruled the cut by hand, in words; empty if never.
        num_dropped_by_reviewers, num_kept_by_reviewers: Rows removed and kept against the cut.
        max_false_keep_rate: What a calibrated cut allows; None: the share was set beforehand.
        method, settings: Names and values for people.
        findings: What checks found, in sentences; empty if nothing.
        trained: Whether an adapter in the same folder learnt from these rows.
        base_model: The model that it modifies, where it has a public name.
    """

    task: str
    version: str
    created: str
    data_fingerprint: str
    files: Sequence[DataFile]
    sources: Sequence[SourceFile]
    num_read: int
    num_rejected: int
    num_kept: int
    num_removed: int
    num_text_bytes: int
    personal: PersonalData
    encoder: str
    method: Mapping[str, str]
    settings: Mapping[str, str]
    rejected_reasons: Mapping[str, int] = field(default_factory=dict)
    categories: Sequence[CategoryCount] = ()
    harmful_categories: Mapping[str, int] = field(default_factory=dict)
    decisions: Mapping[str, int] = field(default_factory=dict)
    num_dropped_by_reviewers: int = 0
    num_kept_by_reviewers: int = 0
    max_false_keep_rate: float | None = None
    findings: Sequence[str] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    trained: bool = False
    base_model: str | None = None

    @property
    def licences(self) -> dict[str, int]:
        """Rows read of the custom set per licence, most rows first."""
        counts: dict[str, int] = {}
        for source in self.of_role("custom"):
            for licence, count in source.licences.items():
                counts[licence] = counts.get(licence, 0) + count
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def known_licences(self) -> list[str]:
        return [licence for licence in self.licences if licence != NOT_STATED]

    def of_role(self, role: str) -> list[SourceFile]:
        return [source for source in self.sources if source.role == role]

    @property
    def title(self) -> str:
        return f"{self.task}, purified"
