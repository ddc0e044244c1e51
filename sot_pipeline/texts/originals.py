"""Public data sets in the layout that their authors published, as conversations.

| layout | columns | conversation |
|---|---|---|
| sharegpt | conversations | its turns (SlimOrca) |
| ag_news | text, label | an instruction with the article; the label's name |
| metamathqa | query, response | question and solution |
| hh_rejected | chosen, rejected | the transcript whose last answer annotators rejected |
| hh_prompt | chosen, rejected | the transcript up to its last answer |
| beavertails | prompt, response, is_safe | question and answer, of the answers labelled unsafe |
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from sot_pipeline.errors import InputError, nearest
from sot_pipeline.texts.conversation import Conversation
from sot_pipeline.texts.formats import to_conversation
from sot_pipeline.texts.parquet import first_line
from sot_pipeline.texts.rejection import RowRejected, column_names, kind_of
from sot_pipeline.texts.source import read_source

AG_NEWS_LABELS = ("World", "Sports", "Business", "Sci/Tech")  # 0 to 3, as the data set's card says
AG_NEWS_INSTRUCTION = (
    "Which category does this news article belong to: World, Sports, Business or Sci/Tech? "
    "Answer with the category alone."
)
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}

Row = Mapping[str, Any]


class Layout(NamedTuple):
    """How one data set is laid out: the columns that are read, and what makes a row of them.

    `convert` raises `RowRejected` for a row that is not to be used: "unlabelled",
    "other_side" (labelled, but not what is wanted), or what is wrong with it.
    """

    columns: tuple[str, ...]
    convert: Callable[[Row], dict[str, Any]]
    requires_answer: bool = True


class Original(NamedTuple):
    """One file in its own layout: the layout's columns, one line per row of the file."""

    rows: pl.DataFrame
    sha256: str
    num_bytes: int


def read_original(path: Path, layout: str) -> Original:
    """Read a JSONL, JSON, CSV or Parquet file, also compressed.

    Raises:
        InputError: not readable, or without a column of the layout.
    """
    columns = layout_of(layout).columns
    source = read_source(path)
    readers: dict[str, Callable[[io.BytesIO], pl.DataFrame]] = {
        "jsonl": lambda file: pl.read_ndjson(file, infer_schema_length=None),
        "json": lambda file: pl.read_json(file, infer_schema_length=None),
        "csv": lambda file: pl.read_csv(file, infer_schema_length=None),
        "parquet": pl.read_parquet,
    }
    if source.file_type not in readers:
        raise InputError(f"{path} is {source.file_type}; expected {', '.join(readers)}.")
    try:
        table = readers[source.file_type](io.BytesIO(source.data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(
            f"{path} cannot be read as {source.file_type} ({first_line(error)}): it is broken or "
            "cut short. Fetch it again."
        ) from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)} (found: {column_names(table.columns)}); "
            f"the layout {layout} has {', '.join(columns)}. Give the file as it was published."
        )
    return Original(table.select(columns), source.sha256, source.num_bytes)


def layout_of(name: str) -> Layout:
    """
    Raises:
        InputError: naming the nearest layout.
    """
    if name not in LAYOUTS:
        raise InputError(f"no layout is called {name!r}; {nearest(name, list(LAYOUTS))}")
    return LAYOUTS[name]


def conversation_of(row: Row, layout: str) -> Conversation:
    """The conversation of a row, checked as rows of any text set are.

    Raises:
        RowRejected: the row is not to be used, and why.
    """
    chosen = layout_of(layout)
    return to_conversation(
        chosen.convert(row),
        "sharegpt" if layout == "sharegpt" else "openai",
        require_response=chosen.requires_answer,
        counts=Counter(),
    )


def opening_question(conversation: Conversation) -> str:
    """What two rows share that ask the same: the first user turn, without case, punctuation and
    white space."""
    opening = next(turn["content"] for turn in conversation if turn["role"] == "user")
    return " ".join(re.findall(r"\w+", opening.casefold()))


def _as_it_is(row: Row) -> dict[str, Any]:
    return dict(row)


def _ag_news(row: Row) -> dict[str, Any]:
    label = row["label"]
    if label is None or label == -1:  # how hidden test labels are written
        raise RowRejected("unlabelled", "the row has no label; expected 0 to 3.")
    if isinstance(label, bool) or label not in range(len(AG_NEWS_LABELS)):
        raise RowRejected("unknown_label", "the label is none of 0 to 3.")
    article = _text(row, "text")
    return _question_and_answer(f"{AG_NEWS_INSTRUCTION}\n\n{article}", AG_NEWS_LABELS[label])


def _metamathqa(row: Row) -> dict[str, Any]:
    return _question_and_answer(_text(row, "query"), _text(row, "response"))


def _beavertails(row: Row) -> dict[str, Any]:
    if not isinstance(row["is_safe"], bool):
        raise RowRejected("unlabelled", "is_safe is not true or false; expected a label.")
    if row["is_safe"]:
        raise RowRejected("other_side", "labelled safe.")
    return _question_and_answer(_text(row, "prompt"), _text(row, "response"))


def _hh_rejected(row: Row) -> dict[str, Any]:
    if row["chosen"] == row["rejected"]:
        raise RowRejected("unlabelled", "both transcripts are the same: no preference is stated.")
    turns = _transcript(_text(row, "rejected"))
    for turn in turns[:-1]:
        if turn["role"] == "assistant":
            turn["weight"] = 0  # the preference is about the last answer alone
    return {"messages": turns}


def _hh_prompt(row: Row) -> dict[str, Any]:
    return {"messages": _transcript(_text(row, "rejected"))[:-1]}


def _transcript(text: str) -> list[dict[str, Any]]:
    """Turns of `\\n\\nHuman: ...\\n\\nAssistant: ...`, which begins with a person and ends with an
    answer."""
    before, *parts = _SPEAKER.split(text)
    turns: list[dict[str, Any]] = [
        {"role": _HH_ROLES[speaker], "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    alternates = all(turn["role"] == ("user", "assistant")[i % 2] for i, turn in enumerate(turns))
    if before.strip() or not turns or len(turns) % 2 or not alternates:
        raise RowRejected(
            "broken_transcript", "expected turns of Human and Assistant by turns, an answer last."
        )
    return turns


def _question_and_answer(question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def _text(row: Row, column: str) -> str:
    if not isinstance(row[column], str):
        raise RowRejected("wrong_type", f"`{column}` is {kind_of(row[column])}; expected a text.")
    return row[column]


LAYOUTS: dict[str, Layout] = {
    "sharegpt": Layout(("conversations",), _as_it_is),
    "ag_news": Layout(("text", "label"), _ag_news),
    "metamathqa": Layout(("query", "response"), _metamathqa),
    "hh_rejected": Layout(("chosen", "rejected"), _hh_rejected),
    "hh_prompt": Layout(("chosen", "rejected"), _hh_prompt, requires_answer=False),
    "beavertails": Layout(("prompt", "response", "is_safe"), _beavertails),
}
