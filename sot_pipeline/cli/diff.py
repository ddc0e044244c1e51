"""`sot diff`: what changed between two purifications of a task."""

from pathlib import Path
from typing import Any

import polars as pl

from sot_pipeline.cli.output import DONE, print_json, table, write_table
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline.errors import InputError

SHOWN_ROWS = 20


def run_diff(
    root: Path | None,
    task: str | None,
    before: str,
    after: str,
    list_versions: bool,
    out: Path | None,
    as_json: bool,
) -> int:
    from sot_pipeline.changes import compare
    from sot_pipeline.defs.assets.changes import evaluation_of, purification, stored_version

    home = Home(root)
    store = Store(home.store)
    task = _the_task(home, task)
    versions = _versions(store, task)
    if list_versions:
        return _list(task, versions, as_json)
    chosen = [_chosen(task, versions, name) for name in (before, after)]
    artefacts = [stored_version(store, version) for version in chosen]
    scores = [evaluation_of(store, task, version) for version in chosen]
    changes = compare(*map(purification, artefacts, scores))
    if out is not None:
        write_table(changes.table, out)
    document = {
        "task": task,
        "before": _described(versions, chosen[0]),
        "after": _described(versions, chosen[1]),
        **changes.summary,
    }
    if as_json:
        print_json(document | {"changes": changes.table.to_dicts()})
        return DONE
    _print(document, changes.table)
    return DONE


def _the_task(home: Home, task: str | None) -> str:
    if task is not None:
        home.read_task(task)
        return task
    names = home.task_names()
    if len(names) != 1:
        listed = ", ".join(names) or "none"
        raise InputError(f"name the task to compare: `sot diff TASK` (tasks: {listed})")
    return names[0]


def _versions(store: Store, task: str) -> list[Stored]:
    """A task's purifications, oldest first: for each selection its latest account of changes."""
    by_selection: dict[str, Stored] = {}
    for changes in store.history(task, "purification_changes"):
        selection = changes.manifest["inputs"]["selected_samples"]
        by_selection.pop(selection, None)  # a selection that came back is the newest
        by_selection[selection] = changes
    if not by_selection:
        raise InputError(
            f"task {task!r} has no purification to compare: run `sot purify --task {task}` first"
        )
    return list(by_selection.values())


def _chosen(task: str, versions: list[Stored], name: str) -> Stored:
    """`~0` is the latest purification, `~1` the one before; else the start of its name."""
    if name.startswith("~") and name[1:].isdigit():
        back = int(name[1:])
        if back < len(versions):
            return versions[-1 - back]
        if len(versions) == 1:
            raise InputError(f"task {task!r} was purified once: there is nothing to compare yet")
        raise InputError(
            f"task {task!r} has {len(versions)} purification(s), {name} is none of them; "
            f"`sot diff {task} --list` shows them"
        )
    found = [v for v in versions if v.manifest["inputs"]["selected_samples"].startswith(name)]
    if len(found) == 1:
        return found[0]
    what = "none" if not found else f"{len(found)}"
    raise InputError(
        f"{what} of the purifications of {task!r} is called {name!r}; "
        f"`sot diff {task} --list` shows their names"
    )


def _described(versions: list[Stored], changes: Stored) -> dict[str, Any]:
    return {
        "version": changes.manifest["inputs"]["selected_samples"][:12],
        "back": len(versions) - 1 - versions.index(changes),
        "created": changes.manifest["created"],
    }


def _list(task: str, versions: list[Stored], as_json: bool) -> int:
    described = [
        _described(versions, changes) | {"changes": changes.document} for changes in versions
    ]
    if as_json:
        print_json({"task": task, "versions": described})
        return DONE
    rows = [
        [
            f"~{version['back']}",
            version["version"],
            version["created"],
            _sentence(version["changes"]),
        ]
        for version in reversed(described)
    ]
    table(f"{task}: purifications, the latest first", ["", "version", "made", "changed"], rows)
    return DONE


def _sentence(summary: dict[str, Any]) -> str:
    if "moved" not in summary:
        return "the first"
    parts = [
        f"{name} rows +{added:,} -{gone:,}"
        for name in ("safe", "harmful", "custom")
        if (added := summary[f"num_{name}_rows_added"]) + (gone := summary[f"num_{name}_rows_gone"])
    ]
    parts.append(
        f"{summary['num_newly_removed']:,} rows removed, {summary['num_newly_kept']:,} back"
    )
    return "; ".join(parts) + f"; {summary['moved']:.2%} of the training weight moved"


def _print(document: dict[str, Any], changes: pl.DataFrame) -> None:
    before, after = document["before"], document["after"]
    print(f"{document['task']}: {before['version']} ({before['created']}) -> "
          f"{after['version']} ({after['created']})")  # fmt: skip
    print(_sentence(document))
    for name in ("harmfulness_score", "helpfulness_score", "accuracy", "over_refusal"):
        values = [document.get(f"{name}_{side}") for side in ("before", "after")]
        if any(value is not None for value in values):
            shown = ["not measured" if v is None else f"{v:.3f}" for v in values]
            print(f"{name}: {shown[0]} -> {shown[1]}")
    texts = changes.filter(pl.col("change").is_in(["added", "gone"]))
    _print_rows(
        "rows of the text sets",
        texts,
        ["text_set", "change", "file", "line", "sample_id", "source_id"],
    )
    flips = changes.filter(pl.col("change").str.starts_with("newly"))
    _print_rows(
        "custom rows on the other side of the cut",
        flips,
        [
            "change",
            "file",
            "line",
            "rank_before",
            "rank_after",
            "sample_id",
            "because",
            "because_of",
        ],
    )


def _print_rows(title: str, rows: pl.DataFrame, columns: list[str]) -> None:
    if rows.is_empty():
        return
    known = [name for name in columns if rows[name].null_count() < rows.height]
    shown = rows.select(known).head(SHOWN_ROWS)
    more = rows.height - shown.height
    table(
        f"\n{title}",
        known,
        [["" if value is None else str(value) for value in row] for row in shown.iter_rows()],
        note=f"and {more:,} more: --out FILE writes all" if more else "",
    )
