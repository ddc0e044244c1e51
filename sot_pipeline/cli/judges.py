"""`sot judges`: how far judges agree with people."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sot_pipeline.cli.options import HomeOption, JsonOption
from sot_pipeline.cli.output import (
    DONE,
    FINDINGS,
    print_json,
    say,
    shown_progress,
    table,
    write_table,
)
from sot_pipeline.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from sot_pipeline.evaluation.agreement_table import Rater
    from sot_pipeline.evaluation.labelled import LabelledFile

judges = typer.Typer(
    name="judges", help="How far judges agree with people.", no_args_is_help=True
)  # fmt: skip


class JudgeName(StrEnum):
    keyword = "keyword"
    openai = "openai"
    classifier = "classifier"
    embedding = "embedding"


class RubricName(StrEnum):
    own = "own"
    hex_phi = "hex_phi"
    strong_reject = "strong_reject"


@judges.callback()
def group() -> None:
    """How far judges agree with people."""


@judges.command()
def agreement(
    file: Annotated[Path, typer.Argument(help="Answers with labels: parquet, csv or jsonl")],
    judge: Annotated[
        list[JudgeName] | None, typer.Option(help="Run this judge too; may be repeated")
    ] = None,
    judge_base_url: Annotated[str | None, typer.Option(help="openai: the endpoint")] = None,
    judge_model: Annotated[str | None, typer.Option(help="openai: the model's name there")] = None,
    judge_rubric: Annotated[RubricName, typer.Option(help="openai: what harm is graded by")] = (
        RubricName.own
    ),
    classifier: Annotated[
        str | None, typer.Option(help="classifier: a directory or a Hugging Face id")
    ] = None,
    classifier_revision: Annotated[str | None, typer.Option(help="Commit of it")] = None,
    harmful_label: Annotated[
        list[str] | None, typer.Option(help="classifier: label that means harm; may be repeated")
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="classifier, embedding: probability that counts as yes")
    ] = 0.5,
    encoder: Annotated[
        str, typer.Option(help="embedding: minilm, a directory or an id")
    ] = "minilm",
    prompt: Annotated[str, typer.Option(help="Column of the prompts")] = "prompt",
    answer: Annotated[str, typer.Option(help="Column of the answers")] = "response",
    source: Annotated[str, typer.Option(help="Column of the sources, reported apart")] = "source",
    model: Annotated[str, typer.Option(help="Column of the answering models")] = "model",
    harm: Annotated[str, typer.Option(help="People's label: harmful or not")] = "human_is_harmful",
    refusal: Annotated[str, typer.Option(help="People's label: refused")] = "human_is_refusal",
    graded_harm: Annotated[str, typer.Option(help="Harm in three steps or more")] = "human_1",
    graded_refusal: Annotated[
        str, typer.Option(help="Refusal in three steps or more")
    ] = "human_final",
    annotator: Annotated[
        list[str] | None,
        typer.Option(help="Column of one person; may be repeated (default: human_1, human_2)"),
    ] = None,
    verdicts: Annotated[
        str, typer.Option(help="How columns of published verdicts begin")
    ] = "judge_",
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="WORD=NUMBER", help="A label's meaning, 0 to 1; may be repeated"),
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap")] = 2000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the table to .parquet or .csv")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Compare judges with people's labels, by source and kind: accuracy, kappa, alpha, AC1, rho.

    Published verdicts and the agreement of people among themselves are read from the file. The
    judge embedding learns from the file's own labels; a row is judged by a model that saw no row
    of its prompt.

    Examples:
      sot judges agreement labelled.parquet --judge keyword --judge embedding
    """
    from sot_pipeline.defs.judges import row_cache_of
    from sot_pipeline.evaluation.agreement_table import agreement_table, systems_table
    from sot_pipeline.evaluation.labelled import Columns, read_labelled

    if out is not None and out.suffix not in (".parquet", ".csv"):
        raise InputError(f"--out {out}: expected a name ending in .parquet or .csv")
    columns = Columns(
        prompt, answer, source, model, harm, refusal, graded_harm, graded_refusal,
        tuple(annotator) if annotator else Columns().annotators, verdicts,
    )  # fmt: skip
    labelled = read_labelled(file, columns, _words(label or []))
    fields: dict[str, Any] = {
        "judge_base_url": judge_base_url,
        "judge_model": judge_model,
        "judge_rubric": judge_rubric.value,
        "judge_classifier": classifier,
        "judge_classifier_revision": classifier_revision,
        "judge_harmful_labels": tuple(harmful_label or ()),
        "judge_encoder": encoder,
        "judge_threshold": threshold,
    }
    with shown_progress():
        raters, fingerprints = _raters(labelled, judge or [], fields, row_cache_of(home))
    found = agreement_table(labelled, raters, num_resamples=resamples, seed=seed)
    systems = systems_table(labelled, raters)
    if out is not None:
        write_table(found, out)
        say(f"written: {out}")
    if json:
        print_json(
            {"file": str(file), "num_resamples": resamples, "seed": seed,
             "columns": columns._asdict(), "judges": fingerprints,
             "agreement": found.to_dicts(), "systems": systems.to_dicts()}
        )  # fmt: skip
    else:
        _print(found, systems, resamples)
    own = [rater.name for rater in raters]
    unreadable = found.filter(found["rater"].is_in(own))["num_unreadable"].sum()
    sys.exit(FINDINGS if unreadable else DONE)


def _raters(
    labelled: "LabelledFile", names: Sequence[JudgeName], fields: dict[str, Any], row_cache: Path
) -> tuple[list["Rater"], dict[str, str]]:
    """What the judges say of the labelled answers, and their fingerprints by name."""
    from pydantic import ValidationError

    from sot_pipeline.defs.judges import cross_fitted_rater, judge_rater
    from sot_pipeline.defs.settings import EvaluationSettings

    raters, fingerprints = [], {}
    for name in dict.fromkeys(names):
        try:
            settings = EvaluationSettings(judge=name.value, **fields)
        except ValidationError as error:
            problem = error.errors()[0]
            raise InputError(f"{problem['loc'][0]}: {problem['msg']}") from None
        if name is JudgeName.embedding:
            rater, fingerprint = cross_fitted_rater(labelled, settings, row_cache)
        else:
            rater, fingerprint = judge_rater(labelled, settings)
        raters.append(rater)
        fingerprints[rater.name] = fingerprint
    return raters, fingerprints


def _words(given: list[str]) -> dict[str, float]:
    words = {}
    for each in given:
        word, equals, number = each.rpartition("=")
        try:
            words[word] = float(number)
        except ValueError:
            equals = ""
        if not equals or not word:
            raise InputError(f"--label {each}: expected WORD=NUMBER, such as toxic=1")
    return words


def _print(found: "pl.DataFrame", systems: "pl.DataFrame", resamples: int) -> None:
    heads = ["source", "kind", "scale", "rater", "n", "unread", "accuracy", "kappa", "alpha",
             "AC1", "rho", "precision", "recall"]  # fmt: skip
    measures = ("accuracy", "kappa", "alpha", "ac1", "spearman")
    lines = [
        [
            row["source"], row["kind"], row["scale"], row["rater"], f"{row['num_rows']:,}",
            f"{row['num_unreadable']:,}", *(_interval(row, name) for name in measures),
            _number(row["precision"]), _number(row["recall"]),
        ]
        for row in found.iter_rows(named=True)
    ]  # fmt: skip
    note = (
        f"95 % intervals of {resamples:,} bootstrap resamples of the rows; over rows with a "
        "verdict. graded: quadratic kappa, ordinal alpha, exact agreement"
    )
    table("", heads, lines, note=note)
    if systems.height:
        table(
            "\nmodels ranked by their rate of yes, against people",
            ["source", "kind", "rater", "models", "tau", "bias from", "to"],
            [
                [row["source"], row["kind"], row["rater"], str(row["num_models"]),
                 _number(row["tau"]), f"{row['lowest_difference']:+.3f}",
                 f"{row['highest_difference']:+.3f}"]
                for row in systems.iter_rows(named=True)
            ],
        )  # fmt: skip


def _interval(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return "–"
    return f"{_number(row[name])} [{_number(row[name + '_low'])}, {_number(row[name + '_high'])}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("0.", ".", 1)
