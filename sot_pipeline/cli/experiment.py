"""`sot experiment`: the paper's experiments on one task."""

import time
from pathlib import Path
from typing import Any

from sot_pipeline.cli.commands import current, failed, run_job
from sot_pipeline.cli.output import DONE, print_json, say, table
from sot_pipeline.cli.task_files import save_settings
from sot_pipeline.defs.home import EvaluationFiles, Home
from sot_pipeline.errors import InputError, nearest

ASSETS = {
    "ablation": "ablation",
    "lambda": "lambda_sweep",
    "keep": "keep_sweep",
    "contamination": "contamination_sweep",
    "embedders": "embedder_swap",
}
FACTS = {
    "num_rows": "rows",
    "harmful_left": "harmful left",
    "benign_lost": "benign lost",
    "refusals_lost": "refusals lost",
}


def run_experiment(
    root: Path | None,
    name: str,
    task: str,
    seeds: int | None,
    assignments: list[str],
    out: Path | None,
    as_json: bool,
) -> int:
    if name not in (*ASSETS, "all"):
        raise InputError(f"no experiment is called {name!r}; {nearest(name, list(ASSETS))}")
    home = Home(root)
    start = time.perf_counter()
    files = home.read_task(task)
    flags = {"experiments.seeds": None if seeds is None else list(range(seeds))}
    save_settings(home, task, files, flags, assignments)
    settings, _ = home.settings(task)
    if settings.base_model.name is None or files.evaluation == EvaluationFiles():
        raise InputError(
            f"task {task!r} needs a model to fine-tune (`sot finetune {task} --base-model ...`) "
            f"and prompts to evaluate on (`sot evaluate {task} --harmful ...`) before experiments"
        )
    documents: list[dict[str, Any]] = []
    for chosen in ASSETS if name == "all" else (name,):
        outcome = run_job(home, task, f"experiment_{chosen}")
        if outcome.error is not None:
            return failed(task, outcome, as_json)
        documents.append(_document(home, task, chosen, out))
        if not as_json:
            _show(documents[-1])
    if as_json:
        seconds = round(time.perf_counter() - start, 1)
        print_json({"task": task, "experiments": documents, "seconds": seconds})
    return DONE


def _document(home: Home, task: str, name: str, out: Path | None) -> dict[str, Any]:
    from sot_pipeline.report.trends import trends

    stored = current(home, task, ASSETS[name])
    found = stored.table()
    document = {
        "experiment": name,
        "variations": _variations(found),
        "trends": [trend._asdict() for trend in trends(name, found)],
        "left_out": stored.document["left_out"],
    }
    if out is not None:
        document["out"] = _write(out, name, found, document)
    return document


def _variations(found: Any) -> list[dict[str, Any]]:
    """Means over the seeds, with the smallest and the largest."""
    from sot_pipeline.report.comparison import SCORES

    variations: list[dict[str, Any]] = []
    for (variation, parameter), rows in found.group_by(
        ["variation", "parameter"], maintain_order=True
    ):
        entry: dict[str, Any] = {"variation": variation, "parameter": parameter}
        entry |= {fact: rows[fact][0] for fact in FACTS}
        for score in SCORES:
            values = rows.filter(rows["score"] == score)["value"].drop_nulls()
            if len(values):
                entry[score] = {"value": values.mean(), "low": values.min(), "high": values.max()}
        variations.append(entry | {"num_seeds": rows["seed"].n_unique()})
    return variations


def _cells(variations: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    facts = [name for name in FACTS if any(v[name] is not None for v in variations)]
    from sot_pipeline.report.comparison import SCORES

    scores = [name for name in SCORES if any(name in v for v in variations)]
    heads = ["variation", *(FACTS[name] for name in facts), *(SCORES[name] for name in scores)]
    return heads, [
        [
            v["variation"],
            *(_fact(name, v[name]) for name in facts),
            *(_interval(name, v.get(name)) for name in scores),
        ]
        for v in variations
    ]


def _fact(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if name == "num_rows" else f"{value:.1%}"


def _interval(name: str, score: dict[str, float] | None) -> str:
    from sot_pipeline.report.comparison import Measured, measured_text

    if score is None:
        return "–"
    return measured_text(name, Measured(**score), interval=True)


def _show(document: dict[str, Any]) -> None:
    heads, cells = _cells(document["variations"])
    seeds = document["variations"][0]["num_seeds"]
    table(f"{document['experiment']}, mean of {seeds} seeds (smallest … largest)", heads, cells)
    table(
        "does this show what the paper reports?",
        ["verdict", "claim", "here"],
        [[t["verdict"], t["claim"], t["found"]] for t in document["trends"]],
    )
    for reason in document["left_out"]:
        say(f"left out: {reason}")
    for path in document.get("out", []):
        print(path)


def _write(out: Path, name: str, found: Any, document: dict[str, Any]) -> list[str]:
    """The scores as Parquet, tables as Markdown, and harm against usefulness as a figure."""
    from sot_pipeline.report.comparison import (
        LOWER_IS_BETTER,
        NO_QUALITY,
        lines,
        markdown_table,
        pareto,
    )
    from sot_pipeline.report.figures import pareto_png

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.parquet", out / f"{name}.md"]
    found.write_parquet(paths[0])
    heads, cells = _cells(document["variations"])
    trend_cells = [[t["verdict"], t["claim"], t["found"]] for t in document["trends"]]
    parts = [
        f"# {name}",
        markdown_table(heads, cells),
        markdown_table(["verdict", "claim", "here"], trend_cells),
        *(f"Left out: {reason}" for reason in document["left_out"]),
    ]
    paths[1].write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    found_lines = lines(_empty(NO_QUALITY), found.rename({"variation": "method"}), {})
    own = "lambda 0.5" if name == "lambda" else "full"
    for measure, label in (("average", "Average"), ("task_loss", "task loss")):
        points = pareto(found_lines, y=measure)
        if points:
            figure = out / f"{name}_pareto_{measure}.png"
            falls = measure in LOWER_IS_BETTER
            figure.write_bytes(
                pareto_png(points, "HmS", label, y_falls=falls, own=own, width_px=900, scale=2)
            )
            paths.append(figure)
    return [str(path) for path in paths]


def _empty(schema: dict[str, Any]) -> Any:
    import polars as pl

    return pl.DataFrame(schema=schema)
