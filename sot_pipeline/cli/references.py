"""`sot references`: faults of the references; rows for the harmful one, proposed, then accepted."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sot_pipeline.cli.options import HomeOption, JsonOption
from sot_pipeline.cli.output import (
    DONE,
    FAILED,
    FINDINGS,
    print_json,
    say,
    shown_progress,
    table,
    write_table,
)

references = typer.Typer(
    name="references",
    help="Look for faults of the references, and keep the harmful one up to date; nothing changes "
    "until a person accepts.",
    no_args_is_help=True,
)

EXCERPT = 400  # characters
SHOWN_ROWS = 10  # of a finding
TaskArgument = Annotated[str, typer.Argument(help="A purified task")]
PendingArgument = Annotated[
    str | None, typer.Argument(help="Pending file, or a part of its name (default: the only one)")
]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="Only the row of this id")]
ExceptOption = Annotated[
    list[str] | None, typer.Option("--except", help="All rows but the one of this id")
]


@references.command("lint")
def lint_(
    task: Annotated[str | None, typer.Option("--task", help="A purified task")] = None,
    safe: Annotated[
        list[str] | None, typer.Option("--safe", help="Safe reference, without a task")
    ] = None,
    harmful: Annotated[
        list[str] | None, typer.Option("--harmful", help="Harmful reference")
    ] = None,
    custom: Annotated[
        list[str] | None, typer.Option("--custom", help="Custom set to compare them with")
    ] = None,
    embedder: Annotated[
        str, typer.Option(help="Encoder of files without a task: minilm, a folder, a hub id")
    ] = "minilm",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write all rows of all findings: .parquet or .csv")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Find faults of a safe and a harmful reference; exit code 3 for an error or a warning.

    Examples:
      sot references lint --task mytask
      sot references lint --safe safe.jsonl --harmful harmful.jsonl --custom rows.jsonl
    """
    from sot_pipeline.defs.home import Home
    from sot_pipeline.defs.reference_lint import lint_files, lint_task

    if (task is None) == (not safe or not harmful) or (task and (safe or harmful or custom)):
        raise typer.BadParameter("give either --task, or --safe and --harmful")
    if out is not None and out.suffix not in (".parquet", ".csv"):
        raise typer.BadParameter(f"--out {out}: expected a name ending in .parquet or .csv")
    with shown_progress():
        report = (
            lint_task(Home(home), task)
            if task is not None
            else lint_files(
                Home(home),
                safe=safe or [],
                harmful=harmful or [],
                custom=custom or [],
                embedder=embedder,
            )
        )
    if out is not None:
        write_table(report.rows, out)
    if json:
        print_json(_lint_document(report))
    else:
        _print_lint(report)
    sys.exit(DONE if report.lint.is_clean else FINDINGS)


@references.command()
def propose(
    task: TaskArgument,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="File of new rows or attacks (default: rows that the cut removed)"
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Most rows to propose")] = 20,
    show_text: Annotated[bool, typer.Option(help="Print the rows, which may be harmful")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Pick rows far from both references that stand for many, and write them for a person to read.

    Examples:
      sot references propose mytask --from attacks.jsonl
    """
    from sot_pipeline.defs.home import Home
    from sot_pipeline.defs.references import propose_rows

    with shown_progress():
        found = propose_rows(Home(home), task, sources or [], count=count)
    document = found._asdict() | {"task": task, "path": str(found.path) if found.path else None}
    if not show_text:
        document["rows"] = [{"id": row["id"], **row["proposal"]} for row in found.rows]
    if json:
        print_json(document)
    else:
        _print_proposed(document, found.rows if show_text else [])
    sys.exit(FINDINGS if found.num_without_answer + found.num_unreadable else DONE)


@references.command("list")
def list_(
    task: Annotated[str | None, typer.Argument(help="Only this task")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """What waits for an answer, and what was accepted and refused.

    Examples:
      sot references list mytask
    """
    from sot_pipeline.defs.home import Home
    from sot_pipeline.defs.references import ledger_of

    place = Home(home)
    tasks = {}
    for name in place.task_names() if task is None else [task]:
        ledger = ledger_of(place, name)
        tasks[name] = {
            "pending": {file: len(rows) for file, rows in ledger.pending().items()},
            "num_accepted": len(ledger.accepted()),
            "num_refused": len(ledger.refused_ids()),
        }
    if json:
        print_json({"tasks": tasks})
        return
    table(
        "",
        ["task", "pending", "accepted", "refused"],
        [
            [
                name,
                ", ".join(f"{file} ({count:,})" for file, count in found["pending"].items()),
                f"{found['num_accepted']:,}",
                f"{found['num_refused']:,}",
            ]
            for name, found in tasks.items()
        ],
    )


@references.command()
def accept(
    task: TaskArgument,
    pending: PendingArgument = None,
    only: OnlyOption = None,
    exclude: ExceptOption = None,
    purify: Annotated[bool, typer.Option(help="Purify the task again at once")] = True,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Add pending rows to the task's harmful reference, and purify the task again.

    Examples:
      sot references accept mytask
    """
    from sot_pipeline.defs.home import Home
    from sot_pipeline.defs.references import accept_rows
    from sot_pipeline.references.ledger import Chosen

    place = Home(home)
    accepted = accept_rows(place, task, pending, Chosen(only or (), exclude or ()))
    document: dict[str, Any] = {
        "task": task,
        "num_accepted": len(accepted.rows),
        "path": str(accepted.path),
    }
    say(f"{len(accepted.rows):,} rows are new in {accepted.path}")
    if purify:
        document |= _purify(place, task)
    if json:
        print_json(document)
    sys.exit(FAILED if document.get("error") else DONE)


@references.command()
def reject(
    task: TaskArgument,
    pending: PendingArgument = None,
    only: OnlyOption = None,
    exclude: ExceptOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Drop pending rows, and never propose them again.

    Examples:
      sot references reject mytask
    """
    from sot_pipeline.defs.home import Home
    from sot_pipeline.defs.references import refuse_rows
    from sot_pipeline.references.ledger import Chosen

    rows = refuse_rows(Home(home), task, pending, Chosen(only or (), exclude or ()))
    say(f"{len(rows):,} rows of {task} will not be proposed again")
    if json:
        print_json({"task": task, "num_refused": len(rows)})


def _purify(place: Any, task: str) -> dict[str, Any]:
    """Purify a task as `sot purify --task` does; the outcome in a few values."""
    from sot_pipeline.cli.runs import run_job

    with shown_progress():
        outcome = run_job(place, task, "purify")
    for check in outcome.failed_checks:
        say(f"warning: {check.asset}: {check.check}: {check.description}")
    if outcome.error is not None:
        say(f"error: {outcome.error}")
    return {"run_id": outcome.run_id, "error": outcome.error,
            "checks": [vars(check) for check in outcome.checks]}  # fmt: skip


def _lint_document(report: Any) -> dict[str, Any]:
    return {
        "clean": report.lint.is_clean,
        "num_rows": report.num_rows,
        "flipped_labels": {
            name: {"rate": flips.rate, "low": flips.low, "high": flips.high}
            for name, flips in report.lint.flips.items()
        },
        "findings": [
            found._asdict() | {"rows": found.rows.drop("finding", "severity").to_dicts()}
            for found in report.lint.findings
        ],
    }


def _print_lint(report: Any) -> None:
    for name, flips in report.lint.flips.items():
        say(f"{name}: {report.num_rows[name]:,} rows, about {flips.rate:.1%} of them mislabelled "
            f"({flips.low:.1%} to {flips.high:.1%})")  # fmt: skip
    if not report.lint.findings:
        say("no findings")
        return
    table(
        "",
        ["severity", "finding", "of", "rows", "share", "what", "what to do"],
        [
            [each.severity, each.name, each.text_set, f"{each.num_rows:,}", f"{each.share:.1%}",
             each.message, each.advice]
            for each in report.lint.findings
        ],
    )  # fmt: skip
    for each in report.lint.findings:
        if each.severity != "note" and each.rows.height:
            _print_lint_rows(each)


def _print_lint_rows(found: Any) -> None:
    shown = found.rows.head(SHOWN_ROWS)
    more = found.rows.height - shown.height
    table(
        f"\n{found.name} ({found.text_set})",
        ["row", "where", "like", "score"],
        [
            [
                row["sample_id"] or "",
                f"{row['file']}:{row['line']}",
                f"{row['like_file']}:{row['like_line']}" if row["like_line"] is not None else "",
                "" if row["score"] is None else f"{row['score']:.2f}",
            ]
            for row in shown.iter_rows(named=True)
        ],
        note=f"and {more:,} more: --out FILE writes all" if more else "",
    )


def _print_proposed(document: dict[str, Any], with_text: list[dict[str, Any]]) -> None:
    if document["num_without_answer"]:
        say(
            f"left out: {document['num_without_answer']:,} rows without an answer; "
            f"`sot purify --task {document['task']} --set texts.prompt_only_harmful=true` takes "
            "such rows as references, and for proposals"
        )
    if document["num_unreadable"]:
        say(f"left out: {document['num_unreadable']:,} unreadable rows")
    say(
        f"{document['num_far']:,} of {document['num_rows']:,} rows are far from both references, "
        f"{document['num_candidates']:,} of them new"
    )
    if document["path"] is None:
        say("nothing to propose")
        return
    table(
        "",
        ["id", "source", "stands for", "safe", "harmful", "rank", "cut at"],
        [_cells({"id": row["id"], **row.get("proposal", row)}) for row in document["rows"]],
        note=f"together {document['num_covered']:,} rows; similarity to the nearest reference row",
    )
    for row in with_text:
        print(f"\n{row['id']}")
        for turn in row["messages"]:
            print(f"  {turn['role']}: {_printable(turn['content'][:EXCERPT])}")
    say("read the rows in this file, then `sot references accept` or `reject`:")
    print(document["path"])


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["id"],
        Path(row["source"]).name,
        f"{row['cluster_size']:,}",
        f"{row['safe_similarity']:.2f}",
        f"{row['harmful_similarity']:.2f}",
        f"{row['rank']:,}",
        f"{row['cut_rank']:,}",
    ]


def _printable(text: str) -> str:
    """On one line, without what would steer a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)
