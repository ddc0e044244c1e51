"""`sot review`: rows around the cut in a spreadsheet, and what people decided about them."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sot_pipeline.cli.options import HomeOption, JsonOption
from sot_pipeline.cli.output import DONE, FAILED, print_json, say, shown_progress, table

review = typer.Typer(
    name="review",
    help="People look at rows around the cut, and decide: keep or drop.",
    no_args_is_help=True,
)

SHOWN_ROWS = 20
TaskArgument = Annotated[str, typer.Argument(help="A purified task")]
ReviewerOption = Annotated[
    str, typer.Option("--reviewer", help="Who decided, where the sheet does not say")
]
RunOption = Annotated[bool, typer.Option("--run/--no-run", help="Purify the task again at once")]


@review.command()
def export(
    task: TaskArgument,
    out: Annotated[Path, typer.Option("--out", help="File to write: .csv or .jsonl")],
    rows: Annotated[int, typer.Option(min=0, help="Most rows; 0: all")] = 50,
    which: Annotated[
        Literal["borderline", "removed", "all"],
        typer.Option(help="Rows on both sides of the cut, removed ones, or all; nearest first"),
    ] = "borderline",
    show_text: Annotated[
        bool, typer.Option("--show-text/--no-text", help="Prompts and responses, maybe harmful")
    ] = True,
    redact: Annotated[
        bool, typer.Option("--redact/--no-redact", help="Replace e-mail addresses, numbers ...")
    ] = True,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Write rows around the cut to a spreadsheet with an empty column `decision`.

    Fill in keep, drop or unsure; withdraw takes an earlier decision back; an empty cell says nothing.

    Examples:
      sot review export mytask --out borderline.csv --rows 100
    """
    from sot_pipeline.defs.home import Home
    from sot_pipeline.defs.reviews import export_rows

    found = export_rows(
        Home(home), task, out, which=which, num_rows=rows, show_text=show_text, redact=redact
    )
    say(
        f"{found.num_rows:,} rows, nearest to the cut first: {found.num_kept:,} stay now, "
        f"{found.num_rows - found.num_kept:,} do not; {found.num_decided:,} carry a decision"
    )
    say(f"fill in `decision`, then: sot review import {task} {out}")
    if json:
        print_json({"task": task, "path": str(out), **found._asdict()})
    else:
        print(out)


@review.command("import")
def import_(
    task: TaskArgument,
    sheet: Annotated[Path, typer.Argument(metavar="FILE", help="The sheet: .csv or .jsonl")],
    reviewer: ReviewerOption = "",
    run: RunOption = True,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Record the decisions of a sheet, all or none, and purify the task again.

    Examples:
      sot review import mytask borderline.csv --reviewer Ann
    """
    from sot_pipeline.defs.home import Home
    from sot_pipeline.defs.reviews import import_answers

    place = Home(home)
    found = import_answers(place, task, sheet, reviewer=reviewer)
    document: dict[str, Any] = {
        "task": task,
        "path": str(found.path),
        "num_answers": found.num_answers,
        "num_new": len(found.new),
        "num_moved": found.num_moved,
        "new": [_effect_document(effect) for effect in found.new],
    }
    say(
        f"{found.num_answers:,} decisions in {sheet}, {len(found.new):,} of them new; "
        f"{found.num_moved:,} rows change sides"
    )
    if not json:
        _print_effects(found.new)
    _finish(place, task, document, purify=run, as_json=json)


@review.command("withdraw")
def withdraw_(
    task: TaskArgument,
    rows: Annotated[
        list[str],
        typer.Argument(metavar="ROW...", help="A sample id, the row's own id, or FILE:LINE"),
    ],
    reviewer: ReviewerOption = "",
    run: RunOption = True,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Take decisions back: the cut decides on these rows again.

    Examples:
      sot review withdraw mytask 0f3a5c9e12b47d68-0
      sot review withdraw mytask custom.jsonl:12
    """
    from sot_pipeline.defs.home import Home
    from sot_pipeline.defs.reviews import forget

    place = Home(home)
    withdrawn = forget(place, task, rows, reviewer=reviewer)
    say(f"{len(withdrawn):,} decisions about {task} withdrawn")
    document: dict[str, Any] = {"task": task, "num_withdrawn": len(withdrawn)}
    _finish(place, task, document, purify=run, as_json=json)


@review.command("list")
def list_(
    task: TaskArgument,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """The decisions in force, the latest last, with those whose row is no longer in the set.

    Examples:
      sot review list mytask
    """
    from sot_pipeline.defs.home import Home
    from sot_pipeline.defs.reviews import list_decisions

    found = list_decisions(Home(home), task)
    if json:
        decisions = [said._asdict() | {"num_rows": count} for said, count in found.in_force]
        log = [said._asdict() for said in found.log]
        print_json({"task": task, "decisions": decisions, "log": log})
        return
    table(
        "",
        ["sample_id", "decision", "rows", "reviewer", "decided", "note"],
        [
            [said.sample_id, said.decision, str(count) if count else "gone", _line(said.reviewer),
             said.decided, _line(said.note)]
            for said, count in found.in_force
        ],
    )  # fmt: skip
    gone = sum(count == 0 for _, count in found.in_force)
    if gone:
        say(
            f"warning: {gone:,} decisions are about rows that are not in the custom set; they are "
            "kept, and hold again if the rows come back"
        )


def _finish(
    place: Any, task: str, document: dict[str, Any], *, purify: bool, as_json: bool
) -> None:
    """Purify again as `sot purify --task` does, print the document, and exit."""
    if purify:
        document |= _purify(place, task)
    if as_json:
        print_json(document)
    sys.exit(FAILED if document.get("error") else DONE)


def _purify(place: Any, task: str) -> dict[str, Any]:
    from sot_pipeline.cli.runs import run_job
    from sot_pipeline.defs.scoring import purified_assets

    with shown_progress():
        outcome = run_job(place, task, "purify")
    for check in outcome.failed_checks:
        say(f"warning: {check.asset}: {check.check}: {check.description}")
    document: dict[str, Any] = {"run_id": outcome.run_id, "error": outcome.error}
    if outcome.error is not None:
        say(f"error: {outcome.error}")
        return document
    selected = purified_assets(place, task, ("selected_samples",))["selected_samples"]
    counts = selected.document["review"]
    say(
        f"{selected.manifest['rows']:,} rows stay (the cut alone: {counts['num_kept_by_cut']:,}); "
        f"kept against the cut {counts['num_kept_against_cut']:,}, dropped against it "
        f"{counts['num_dropped_against_cut']:,}"
    )
    say(
        "folders that were written before hold the earlier selection: "
        f"`sot purify --task {task} --out DIR` writes them anew"
    )
    return document | {"num_kept": selected.manifest["rows"], "review": counts}


def _effect_document(effect: Any) -> dict[str, Any]:
    return effect.decision._asdict() | {
        name: getattr(effect, name) or None for name in ("file", "line", "rank", "change")
    }


def _print_effects(effects: list[Any]) -> None:
    moved = [effect for effect in effects if effect.change in ("comes back", "goes")]
    if not moved:
        return
    table(
        "",
        ["sample_id", "where", "rank", "decision", "the row", "reviewer"],
        [
            [each.decision.sample_id, f"{each.file}:{each.line}", f"{each.rank:,}",
             each.decision.decision, each.change, _line(each.decision.reviewer)]
            for each in moved[:SHOWN_ROWS]
        ],
        note=f"and {len(moved) - SHOWN_ROWS:,} more" if len(moved) > SHOWN_ROWS else "",
    )  # fmt: skip


def _line(text: str) -> str:
    """On one line, without what would steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
