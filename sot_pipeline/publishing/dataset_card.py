"""The dataset card of a purified set: README.md of its folder.

Front matter as the Hugging Face hub reads it (huggingface.co/docs/hub/datasets-cards), with
`configs` by which `datasets.load_dataset(FOLDER)` finds the rows. It reads one file type per folder
(datasets 5.2.0), so that neither the ledger nor rows of another type can be a second configuration.
"""

import re
from collections.abc import Sequence
from typing import Any

from sot_pipeline.publishing.data_facts import PAPER, PAPER_ADDRESS, DataFacts, DataFile, kind_name
from sot_pipeline.publishing.licences import hub_licences
from sot_pipeline.publishing.markdown import Markdown, fenced, front_matter, rendered
from sot_pipeline.publishing.removal import limit_of_the_cut, why_removed

CARD = "README.md"
OWN_KEY = "sot_pipeline"  # of the front matter: numbers for `sot verify`
_SIZES = (
    (10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"),
)  # fmt: skip
CITATION = f"""@inproceedings{{safety_optimal_transport,
  title     = {{Safety Optimal Transport}},
  booktitle = {{ACL}},
  year      = {{2026}},
  eprint    = {{{PAPER_ADDRESS.rpartition("/")[2]}}},
  archivePrefix = {{arXiv}},
  url       = {{{PAPER_ADDRESS}}}
}}"""


def dataset_card(facts: DataFacts, contents: Sequence[tuple[str, str]] = ()) -> str:
    """The card as Markdown with YAML front matter; no value in it is read as markup.

    Args:
        contents: Further files and folders beside the rows, each with what it is.
    """
    return rendered(
        "dataset_card.md.jinja",
        facts=facts,
        head=front_matter(card_fields(facts)),
        contents=contents,
        load=fenced(loading_code(), "python"),
        citation=fenced(CITATION, "bibtex"),
        paper=PAPER,
        paper_address=Markdown(PAPER_ADDRESS),
        share=_share,
        why_removed=why_removed(facts),
        limit_of_the_cut=limit_of_the_cut(facts),
        kind_name=kind_name,
        not_loaded=[file for file in facts.files if file not in loadable(facts)],
    )


def card_fields(facts: DataFacts) -> dict[str, Any]:
    """The front matter."""
    return {
        "pretty_name": facts.title,
        "license": hub_licences(facts.licences),
        "task_categories": ["text-generation"],
        "tags": ["safety", "data-selection", "fine-tuning", "sot_pipeline"],
        "size_categories": [size_category(facts.num_kept)],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "train", "path": [_escaped_glob(f.name) for f in loadable(facts)]}
                ],
                **loadable(facts)[0].reading,
            },
        ],
        OWN_KEY: {
            "task": facts.task,
            "data_fingerprint": facts.data_fingerprint,
            "num_kept": facts.num_kept,
            "num_removed": facts.num_removed,
            "personal_data_found": facts.personal.num_found,
            "personal_data_redacted": facts.personal.redacted,
        },
    }


def size_category(num_rows: int) -> str:
    return next((name for limit, name in _SIZES if num_rows < limit), "n>1B")


def loadable(facts: DataFacts) -> list[DataFile]:
    """The files that one reader takes: those of the type that most rows have."""
    rows: dict[str, int] = {}
    for file in facts.files:
        rows[_reader(file)] = rows.get(_reader(file), 0) + file.num_rows
    chosen = max(rows, key=lambda reader: rows[reader])
    return [file for file in facts.files if _reader(file) == chosen]


def loading_code() -> str:
    return (
        "from datasets import load_dataset\n"
        "import polars as pl\n\n"
        'rows = load_dataset(".", split="train")   # the kept rows\n'
        'ledger = pl.read_parquet("ledger.parquet")  # every row, with its reason'
    )


def _reader(file: DataFile) -> str:
    """What decides on the reader: the type without compression, and what it must be told."""
    kind = file.file_type.partition(".")[0]
    return " ".join(["json" if kind == "jsonl" else kind, *map(str, sorted(file.reading.items()))])


def _escaped_glob(name: str) -> str:
    """A path that the reader takes for a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"
