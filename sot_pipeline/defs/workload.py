"""What there is to do: rows and tokens of each text set, counted where the files are there."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.errors import InputError

CHARACTERS_PER_TOKEN = 4.0  # English prose in vocabularies of 128,000 and more; assumed
TEMPLATE_TOKENS = 20  # that a chat template puts around a question and its answer; assumed
SAMPLE_ROWS, LONGEST_ROWS = 500, 10  # that a tokenizer counts, for the mean and for the longest
LONGEST_OVER_MEAN = 6.0  # where nobody has counted; assumed


class TextLengths(NamedTuple):
    """Rows of a set, and their lengths in tokens.

    Attributes:
        prompt, answer: Tokens on average, the template's among the prompt's.
        longest: Tokens of the longest row.
        basis: How they were counted, or what was assumed.
    """

    num_rows: int
    prompt: float
    answer: float
    longest: float
    basis: str

    @property
    def mean(self) -> float:
        return self.prompt + self.answer

    @property
    def num_tokens(self) -> float:
        return self.num_rows * self.mean

    def cut(self, max_length: int) -> "TextLengths":
        """With rows cut to so many tokens; what goes is the beginning, never the answer."""
        answer = min(self.answer, max_length)
        prompt = min(self.prompt, max_length - answer)
        return self._replace(prompt=prompt, answer=answer, longest=min(self.longest, max_length))


NO_ROWS = TextLengths(0, 0.0, 0.0, 0.0, "none")


class Workload(NamedTuple):
    """The text sets of a task, by their role in it."""

    custom: TextLengths
    safe: TextLengths
    harmful: TextLengths
    eval_harmful: TextLengths = NO_ROWS
    eval_over_refusal: TextLengths = NO_ROWS
    eval_task: TextLengths = NO_ROWS


def assumed(num_rows: int, prompt: float, answer: float, basis: str) -> TextLengths:
    """Lengths that nobody has counted; without the template's tokens."""
    prompt += TEMPLATE_TOKENS
    return TextLengths(num_rows, prompt, answer, LONGEST_OVER_MEAN * (prompt + answer), basis)


def together(sets: Sequence[TextLengths]) -> TextLengths:
    """Several sets as one."""
    rows = sum(one.num_rows for one in sets)
    if rows == 0:
        return NO_ROWS
    return TextLengths(
        rows,
        sum(one.num_rows * one.prompt for one in sets) / rows,
        sum(one.num_rows * one.answer for one in sets) / rows,
        max(one.longest for one in sets if one.num_rows),
        "; ".join(dict.fromkeys(one.basis for one in sets if one.num_rows)),
    )


def counted(
    files: Mapping[str, Path], *, model: Path | None = None, require_response: bool = True
) -> TextLengths:
    """Lengths of the rows of files: of a sample as a model directory's tokenizer and template
    render it, else by their characters.

    Raises:
        InputError: the files cannot be read, or the tokenizer.
    """
    from sot_pipeline.texts.read import read_text_files

    rows = read_text_files(files, require_response=require_response).rows.with_columns(
        pl.col("response").fill_null("")
    )
    if model is not None and (model / "tokenizer.json").exists():
        return _rendered(rows, model)
    prompt, answer = (
        rows[name].str.len_chars().cast(pl.Float64) / CHARACTERS_PER_TOKEN
        for name in ("prompt", "response")
    )
    whole = prompt + answer
    return TextLengths(
        rows.height,
        _mean(prompt) + TEMPLATE_TOKENS,
        _mean(answer),
        float(np.max(whole.to_numpy())) + TEMPLATE_TOKENS,
        f"counted at {CHARACTERS_PER_TOKEN:g} characters a token",
    )


def _rendered(rows: pl.DataFrame, model: Path) -> TextLengths:
    from transformers import AutoTokenizer

    from sot_pipeline.rendering import render

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{model} holds no tokenizer that can be loaded ({type(error).__name__}). Fetch the "
            "model again."
        ) from error
    size = pl.col("messages").str.len_chars()
    by_length = rows.sort(size, descending=True)
    sample = rows.gather_every(max(1, rows.height // SAMPLE_ROWS))

    def lengths(part: pl.DataFrame) -> list[int]:
        return [len(render(tokenizer, json.loads(turns))) for turns in part["messages"]]

    answers = [len(tokenizer(text)["input_ids"]) if text else 0 for text in sample["response"]]
    whole, answer = float(np.mean(lengths(sample))), float(np.mean(answers))
    return TextLengths(
        rows.height,
        max(whole - answer, 0.0),
        answer,
        float(max(lengths(by_length.head(LONGEST_ROWS)))),
        f"rendered with the tokenizer of {model}",
    )


def _mean(values: pl.Series) -> float:
    return float(np.mean(values.to_numpy()))
