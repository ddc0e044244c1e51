"""`sot compare`: every method on the same rows, under the same budget, in one table."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sot_pipeline.cli.commands import (
    current,
    failed,
    home_of,
    print_findings,
    report_path,
    run_job,
)
from sot_pipeline.cli.dry_run import run_dry
from sot_pipeline.cli.output import DONE, FINDINGS, print_json, say, table
from sot_pipeline.cli.task_files import changed_settings, save_settings
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.methods import SELECTIONS, Method
from sot_pipeline.defs.settings import Settings
from sot_pipeline.errors import InputError

SELECTION_JOB, WHOLE_JOB = "compare_selections", "purify_and_finetune"


def run_compare(
    root: Path | None,
    name: str,
    methods: str | None,
    without: str | None,
    seeds: int | None,
    selections_only: bool,
    labels: Path | None,
    assignments: list[str],
    out: Path | None,
    as_json: bool,
    dry_on: str | None = None,
) -> int:
    home = home_of(root, dry_on)
    start = time.perf_counter()
    task = home.read_task(name)
    if labels is not None:
        from sot_pipeline.texts.labels import read_labels

        read_labels(labels)  # before anything is written
        task = task.model_copy(update={"labels": labels.resolve()})
    trains = not selections_only
    chosen = _chosen(task, changed_settings(home, task, assignments), methods, without)
    if trains:
        flags = {
            "comparison.methods": chosen,
            "comparison.seeds": None if seeds is None else list(range(seeds)),
        }
    else:  # what other commands train stays as it is
        selections = dict.fromkeys(Method.parse(method).selection for method in chosen)
        flags = {"comparison.selections": list(selections)}
    settings = changed_settings(home, task, assignments, flags)
    if trains and settings.base_model.name is None:
        raise InputError(
            f"task {name!r} names no model to fine-tune: give one to `sot finetune {name} "
            "--base-model ...`, or compare the choice of rows alone with --selections-only"
        )
    save_settings(home, name, task, flags, assignments)
    job = WHOLE_JOB if trains else SELECTION_JOB
    if dry_on is not None:
        return run_dry(home, name, job, dry_on, as_json)
    outcome = run_job(home, name, job)
    if outcome.error is not None:
        return failed(name, outcome, as_json)
    found = _Found(home, name, trains)
    document = found.document() | {"seconds": round(time.perf_counter() - start, 1)}
    written = [] if out is None else found.write(out)
    document["out"] = written
    if as_json:
        print_json(document)
    else:
        found.show()
        print_findings(outcome)
        for path in written:
            print(path)
        if trains:
            say(f"report: {report_path(home, name)}")
    return FINDINGS if outcome.failed_checks else DONE


def _chosen(
    task: TaskFile, settings: Settings, methods: str | None, without: str | None
) -> list[str]:
    """The methods to compare: those that are named, or all but those that are left out.

    Raises:
        InputError: a name is unknown, or a method cannot run here and nobody left it out.
    """
    from sot_pipeline.defs.rivals import what_lacks

    left_out = [str(Method.parse(method)) for method in _names(without)]
    named = [str(Method.parse(method)) for method in _names(methods)] or list(SELECTIONS)
    chosen = [method for method in named if method not in left_out]
    lacking = {
        method: reason
        for method in chosen
        if (reason := what_lacks(Method.parse(method).selection, settings, task))
    }
    if lacking:
        listed = "\n".join(f"  {method}: {reason}" for method, reason in lacking.items())
        flag = ",".join([*left_out, *lacking])
        raise InputError(
            f"these methods cannot be compared yet:\n{listed}\nGive what they lack, or leave them "
            f"out: --without {flag}"
        )
    if not chosen:
        raise InputError("no method is left to compare: --without leaves all of them out")
    return chosen


def _names(listed: str | None) -> list[str]:
    return [name.strip() for name in (listed or "").split(",") if name.strip()]


class _Found:
    """What a comparison found, as tables, files and a document."""

    def __init__(self, home: Home, name: str, trained: bool) -> None:
        import polars as pl

        from sot_pipeline.report.comparison import NO_SCORES, lines

        self.name = name
        self.quality = current(home, name, "selection_quality").table()
        stored = current(home, name, "compared_selections")
        self.costs: Mapping[str, Any] = stored.document["costs"]
        self.num_kept = stored.document["num_kept"]
        self.num_rows = current(home, name, "custom_texts").manifest["rows"]
        self.scores = (
            current(home, name, "comparison").table() if trained else pl.DataFrame(schema=NO_SCORES)
        )
        self.lines = lines(self.quality, self.scores, self.costs)

    def show(self) -> None:
        from sot_pipeline.report.comparison import table as shown

        heads, cells = shown(self.lines, intervals=False)
        share = self.num_kept / self.num_rows
        table(
            f"{self.name}: {self.num_kept:,} of {self.num_rows:,} rows kept ({share:.0%}) by every "
            "method but sft, sft_clean, sot_reweight and toss",
            heads,
            cells,
            note="HmS: share of harmful prompts answered harmfully. Average: mean of 1 - HmS, HpS "
            "and accuracy (this project's definition). Intervals: --out or --json.",
        )
        if self.quality.is_empty():
            say("quality of the selections: not measured, no labels (give --labels FILE)")
        for source in self._sources():
            from sot_pipeline.report.comparison import lines

            heads, cells = shown(
                lines(self.quality, self.scores.head(0), {}, source), intervals=False
            )
            table(f"harmful rows of {source} alone", heads, cells)

    def _sources(self) -> list[str]:
        return [s for s in self.quality["source"].unique(maintain_order=True) if s != "all"]

    def document(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "num_kept": self.num_kept,
            "num_rows": self.num_rows,
            "methods": [
                {
                    "method": line.method,
                    "quality": {k: v._asdict() for k, v in line.quality.items()},
                    "difference_to_sot": {k: v._asdict() for k, v in line.difference.items()},
                    "scores": {k: v._asdict() for k, v in line.scores.items()},
                    "costs": line.costs,
                }
                for line in self.lines
            ],
            "by_source": self.quality.to_dicts(),
        }

    def write(self, out: Path) -> list[str]:
        """The tables as Parquet and Markdown, and the Pareto plot where there is one."""
        from sot_pipeline.report.comparison import LOWER_IS_BETTER, markdown, pareto
        from sot_pipeline.report.figures import pareto_png

        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out}: is a file, expected a folder")
        out.mkdir(parents=True, exist_ok=True)
        text = [f"# {self.name}: methods compared", "", markdown(self.lines)]
        text += self._differences()
        paths = [out / "comparison.md", out / "selection_quality.parquet", out / "scores.parquet"]
        paths[0].write_text("\n".join(text) + "\n", encoding="utf-8")
        self.quality.write_parquet(paths[1])
        self.scores.write_parquet(paths[2])
        axes = (
            ("harmfulness_score", "average", "HmS", "Average"),
            ("harmfulness_score", "task_loss", "HmS", "task loss"),
            ("harmful_left", "auroc", "harmful rows left", "AUROC"),
        )
        for x, y, *labels in axes:
            points = pareto(self.lines, x, y)
            if points:
                path = out / f"pareto_{x}_{y}.png"
                falls = y in LOWER_IS_BETTER
                path.write_bytes(pareto_png(points, *labels, y_falls=falls, width_px=900, scale=2))
                paths.append(path)
        return [str(path) for path in paths]

    def _differences(self) -> Sequence[str]:
        from sot_pipeline.report.comparison import QUALITY, Line, markdown

        compared = [
            Line(line.method, line.difference, {}, {}, {})
            for line in self.lines
            if line.difference and any(m in line.difference for m in QUALITY)
        ]
        if not compared:
            return []
        return ["", "## Paired differences to sot", "", markdown(compared)]
