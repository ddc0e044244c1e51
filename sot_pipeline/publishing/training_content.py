"""The summary of training content, one to two pages: `TRAINING_CONTENT.md`.

Follows the sections of the template of the European Commission for the public summary of training
content (Article 53(1)(d) of Regulation (EU) 2024/1689; template of 24 July 2025, C(2025) 8311), with
what the records of a purification know. All else is marked as to be filled in.
"""

from sot_pipeline.publishing.data_facts import PAPER, PAPER_ADDRESS, DataFacts, kind_name
from sot_pipeline.publishing.markdown import Markdown, rendered
from sot_pipeline.publishing.removal import why_removed

SUMMARY = "TRAINING_CONTENT.md"
TO_FILL_IN = Markdown("*to be filled in by the provider*")
_SMALLEST_RANGE = 10**9  # tokens: the first range of the template


def training_content(facts: DataFacts) -> str:
    """The summary as Markdown; no value in it is read as markup."""
    return rendered(
        "training_content.md.jinja",
        facts=facts,
        blank=TO_FILL_IN,
        kind_name=kind_name,
        short=_short,
        paper=PAPER,
        paper_address=Markdown(PAPER_ADDRESS),
        why_removed=why_removed(facts),
        size=_size_range(facts.num_text_bytes),
        public=[s for s in facts.of_role("custom") if s.is_remote],
        local=[s for s in facts.of_role("custom") if not s.is_remote],
    )


def _short(sha256: str) -> str:
    """As much of a hash as fits on a page; the manifest holds the whole."""
    return f"{sha256[:16]}…"


def _size_range(num_text_bytes: int) -> str | None:
    """The template's range of tokens, where it is certain: a token takes one byte or more."""
    return "less than 1 billion tokens" if num_text_bytes < _SMALLEST_RANGE else None
