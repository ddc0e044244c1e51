"""`sot explain`: why a row stays or goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sot_pipeline.cli.break_even import break_even_lines
from sot_pipeline.cli.output import DONE, print_json, table
from sot_pipeline.defs.explained import ExplainedTask, why_outdated
from sot_pipeline.defs.home import Home
from sot_pipeline.errors import InputError

_LONGEST_TEXT = 2_000  # characters of a turn that are shown


class Chosen(NamedTuple):
    """Which rows are asked for: one by its name, or several."""

    words: list[str]  # [TASK] ROW, or [TASK]
    worst: int | None
    borderline: int | None


class Rewriting(NamedTuple):
    """A language model that words the paragraph anew."""

    base_url: str | None
    model: str | None
    api_key_env: str


def run_explain(
    root: Path | None,
    chosen: Chosen,
    rewriting: Rewriting | None,
    show_text: bool,
    as_json: bool,
) -> int:
    home = Home(root)
    task, wanted = _asked(home, chosen)
    explained = ExplainedTask(home, task)
    if chosen.worst is not None:
        ids = explained.worst(chosen.worst)
    elif chosen.borderline is not None:
        ids = explained.borderline(chosen.borderline)
    else:
        ids = [explained.find(wanted)]
    rewrite = None if rewriting is None else _rewriter(rewriting)
    rows = [_with_wording(explained.evidence(one), rewrite) for one in ids]
    if show_text:
        rows = [row | {"texts": _texts(explained, row)} for row in rows]
    stale = _stale(home, task)
    if as_json:
        document = rows[0] if wanted else {"task": task, "rows": rows}
        print_json(document | {"stale": stale})
        return DONE
    if stale:
        print(_plain(f"not purified since {'; '.join(stale)}: run `sot purify --task {task}`"))
        print()
    for number, row in enumerate(rows):
        print("" if number == 0 else "\n", end="")
        _print(row, explained.num_rows)
    return DONE


def _stale(home: Home, task: str) -> list[str]:
    from sot_pipeline.definitions import ASSETS

    return why_outdated(ASSETS, home, task)


def _asked(home: Home, chosen: Chosen) -> tuple[str, str]:
    """The task and what its row is called, "" where several are asked for."""
    several = chosen.worst is not None or chosen.borderline is not None
    most, words = (1 if several else 2), chosen.words
    if chosen.worst is not None and chosen.borderline is not None:
        raise InputError("--worst and --borderline exclude each other")
    if len(words) > most or (not several and not words):
        usage = "[TASK] --worst N" if several else "[TASK] ROW"
        raise InputError(f"got {len(words)} words; expected `sot explain {usage}`")
    wanted = "" if several else words[-1]
    named = words[:1] if several else words[:-1]
    if named:
        home.read_task(named[0])
        return named[0], wanted
    names = home.task_names()
    if len(names) != 1:
        listed = ", ".join(names) or "none yet"
        raise InputError(f"name the task: `sot explain TASK ROW` (tasks: {listed})")
    return names[0], wanted


Rewrite = Callable[[dict[str, Any]], Any]


def _rewriter(rewriting: Rewriting) -> Rewrite:
    from sot_pipeline.chat_endpoint import ChatEndpoint
    from sot_pipeline.explanations.rewriting import rewrite

    if not rewriting.base_url or not rewriting.model:
        raise InputError(
            "--rewrite needs a model: give --base-url (such as http://127.0.0.1:8000/v1) and --model"
        )
    endpoint = ChatEndpoint(
        base_url=rewriting.base_url,
        model=rewriting.model,
        who="The model",
        api_key_env=rewriting.api_key_env,
        other_key=", or name another one (--api-key-env)",
        again="explain again",
        without="leave --rewrite out",
    )
    return lambda evidence: rewrite(evidence, endpoint.ask)


def _with_wording(evidence: dict[str, Any], rewrite: Rewrite | None) -> dict[str, Any]:
    if rewrite is None:
        return evidence
    # a note is a person's own words: it backs no statement
    made = rewrite({key: evidence[key] for key in evidence if key not in ("reviewer", "note")})
    return evidence | {
        "text": made.text,
        "text_by_model": made.by_model,
        "rewriting_problems": list(made.problems),
    }


def _texts(explained: ExplainedTask, row: dict[str, Any]) -> dict[str, Any]:
    """The row and the reference rows that it names, hidden characters made visible."""
    places = [("custom", row["sample_id"])]
    places += [(name, one["sample_id"]) for name in ("harmful", "safe") for one in row[name]]
    return {
        f"{name} {sample_id}": [_shown(turn) for turn in explained.messages(name, sample_id)]
        for name, sample_id in places
    }


def _shown(turn: dict[str, Any]) -> dict[str, str]:
    from sot_pipeline.visible import excerpt, visible

    return {"role": turn["role"], "content": excerpt(visible(turn["content"]), _LONGEST_TEXT)}


def _print(row: dict[str, Any], num_rows: int) -> None:
    own_id = "" if row["source_id"] is None else f", id {row['source_id']}"
    weight = f"weight {row['relative_weight']:.2g} of an even share"
    print(_plain(f"{row['file']}:{row['line']}  {row['sample_id']}{own_id}, {weight}"))
    print(f"\n{row.get('text', row['explanation'])}\n")
    if row["decision"] is not None:
        print(f"{_decided(row)}\n")
    if row.get("rewriting_problems"):
        print(f"(the template's words: {_plain('; '.join(row['rewriting_problems']))})\n")
    table(
        "reference rows that it was matched with most",
        ["reference", "where", "sample_id", "share of the match", "similarity", "category"],
        [_reference_line(name, one) for name in ("harmful", "safe") for one in row[name]],
    )
    without = "" if row["decision"] is None else ", without the decision"
    table(
        f"\nwhat would have to differ{without}",
        ["setting", "now", "changes sides at"],
        break_even_lines(row, num_rows),
    )
    methods = [*row["disagreeing_methods"], *row["compared_methods_that_disagree"]]
    print(f"\nmethods that disagree: {_plain(', '.join(methods)) or 'none'}"
          + _compared_note(row))  # fmt: skip
    for name, turns in row.get("texts", {}).items():
        print(f"\n--- {name}")
        for turn in turns:
            print(f"[{turn['role']}] {turn['content']}")


def _compared_note(row: dict[str, Any]) -> str:
    if row["compared_methods"]:
        return f" (compared: {_plain(', '.join(row['compared_methods']))})"
    return " (of those that cost no solve; `sot compare` sets others beside them)"


def _reference_line(name: str, one: dict[str, Any]) -> list[str]:
    return [
        name,
        _plain(f"{one['file']}:{one['line']}"),
        one["sample_id"],
        f"{one['share']:.2%}",
        f"{one['similarity']:.3f}",
        one["category"] or "",
    ]


def _decided(row: dict[str, Any]) -> str:
    """Who decided, and what they said of it."""
    who = f" by {_plain(row['reviewer'])}" if row["reviewer"] else ""
    note = f": {_plain(row['note'])}" if row["note"] else ""
    return f"decision to {row['decision']} it{who}{note}"


def _plain(text: str) -> str:
    """Names of files and ids come from the data."""
    from sot_pipeline.visible import visible

    return visible(text).replace("\n", "⟨U+000A⟩")
