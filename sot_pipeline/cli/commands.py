"""The commands that run the asset graph."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sot_pipeline.cli.dry_run import run_dry
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
from sot_pipeline.cli.task_files import prepare_task, save_settings, with_defence_options
from sot_pipeline.defs.home import EvaluationFiles, ExperimentFiles, Home, TaskFile
from sot_pipeline.errors import InputError
from sot_pipeline.progress import duration

SCORE_COLUMNS = {
    "hms": "harmfulness_score",
    "hps": "helpfulness_score",
    "accuracy": "accuracy",
    "over_refusal": "over_refusal",
    "task_loss": "task_loss",
}


def run_demo(
    root: Path | None, *, seeds: int, world_seed: int, out: Path | None, as_json: bool
) -> int:
    from sot_pipeline.demo.settings import DEMO_SETTINGS
    from sot_pipeline.demo.world import build_world, write_world

    # a model this small loses more by waiting for a second thread than it gains; the second
    # core runs a second training instead
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("SOT_WORKERS", str(os.cpu_count() or 1))
    home = Home(root)
    _require_out(out)
    start = time.perf_counter()
    folder = home.root / "demo" / f"world{world_seed}"
    if not as_json:
        say(f"writing the demo's text sets to {folder}")
    files = write_world(build_world(world_seed), folder)
    compared = {"methods": ["sft_clean", "sft", "random"], "seeds": list(range(seeds))}
    settings = {**DEMO_SETTINGS, "comparison": compared}
    name = "demo" if world_seed == 0 else f"demo-world{world_seed}"
    home.write_task(
        name,
        TaskFile(
            custom=(str(files["custom"]),),
            safe=(str(files["safe"]),),
            harmful=(str(files["harmful"]),),
            custom_clean=files["custom_clean"],
            labels=files["labels"],
            evaluation=EvaluationFiles(
                harmful=files["eval_harmful"],
                over_refusal=files["eval_over_refusal"],
                task=files["eval_task"],
            ),
            experiments=ExperimentFiles(
                **{name: files[name] for name in ExperimentFiles.model_fields}
            ),
            settings=settings,
        ),
    )
    outcome = run_job(home, name, "purify_and_finetune")
    if outcome.error is not None:
        return failed(name, outcome, as_json)
    document = {
        "results": _results(home, name),
        "report": str(report_path(home, name)),
        "task": name,
        "seconds": round(time.perf_counter() - start, 1),
        "checks": [vars(check) for check in outcome.checks],
    }
    if out is not None:
        document["out"], findings = _write_out(home, name, out, report="safety_report")
        _say_findings(findings)
    if as_json:
        print_json(document)
    else:
        _print_results(document["results"])
        print_findings(outcome)
        say(f"report: {document['report']}   ({duration(document['seconds'])})")
    return DONE  # its contamination is unlike the harmful reference on purpose: a finding, shown


def run_purify(
    root: Path | None,
    name: str | None,
    sources: tuple[list[str], list[str], list[str]],
    flags: Mapping[str, Any],
    assignments: list[str],
    out: Path | None,
    as_json: bool,
    documents: Mapping[str, Any] | None = None,
    dry_on: str | None = None,
) -> int:
    home = home_of(root, dry_on)
    start = time.perf_counter()
    _require_out(out)
    name = prepare_task(home, name, *sources, flags, assignments)
    if dry_on is not None:
        return run_dry(home, name, "purify", dry_on, as_json)
    outcome = run_job(home, name, "purify")
    if outcome.error is not None:
        return failed(name, outcome, as_json)
    document = _purify_document(home, name, outcome) | {
        "seconds": round(time.perf_counter() - start, 1)
    }
    if out is not None:
        document["out"], document["findings"] = _write_out(home, name, out, documents=documents)
        _say_findings(document["findings"])
    findings = bool(outcome.failed_checks) or document["num_rejected"] > 0
    if as_json:
        print_json(document)
    else:
        _print_purified(document)
        print_findings(outcome)
    return FINDINGS if findings else DONE


def run_finetune(
    root: Path | None,
    name: str,
    flags: Mapping[str, Any],
    defence_options: list[str],
    assignments: list[str],
    out: Path | None,
    as_json: bool,
    dry_on: str | None = None,
) -> int:
    home = home_of(root, dry_on)
    start = time.perf_counter()
    task = home.read_task(name)
    chosen = with_defence_options(home, name, flags, defence_options)
    save_settings(home, name, task, chosen, assignments)
    settings, _ = home.settings(name)
    if settings.base_model.name is None:
        raise InputError(
            f"task {name!r} names no model to fine-tune: give --base-model (a Hugging Face id or "
            "a directory of an aligned model)"
        )
    if dry_on is not None:
        return run_dry(home, name, "finetune", dry_on, as_json)
    outcome = run_job(home, name, "finetune")
    if outcome.error is not None:
        return failed(name, outcome, as_json)
    stored = current(home, name, "adapter")
    document = {
        "task": name,
        "adapter": str(stored.directory / "adapter"),
        "seconds": round(time.perf_counter() - start, 1),
        **stored.document,
    }
    if out is not None:
        shutil.copytree(stored.directory / "adapter", out, dirs_exist_ok=True)
        document["out"] = str(out)
    if as_json:
        print_json(document)
    else:
        say(
            f"{document['num_steps']:,} steps on {document['num_rows']:,} rows"
            f"{_defended(document)}, loss {document['loss_first']:.3f} to "
            f"{document['loss_last']:.3f}"
        )
        print(document.get("out", document["adapter"]))
        print_findings(outcome)
    return FINDINGS if outcome.failed_checks else DONE


def _defended(document: Mapping[str, Any]) -> str:
    if document["defence"] == "none":
        return ""
    mixed = document["num_safety_rows"]
    return f" ({document['defence']}{f', {mixed:,} of them its own' if mixed else ''})"


def run_evaluate(
    root: Path | None,
    name: str,
    files: Mapping[str, Path | None],
    flags: Mapping[str, Any],
    assignments: list[str],
    compare: bool,
    as_json: bool,
    dry_on: str | None = None,
) -> int:
    home = home_of(root, dry_on)
    if compare:
        flags = {**flags, "comparison.methods": ["sft", "random"]}
    start = time.perf_counter()
    task = home.read_task(name)
    given = {key: path.resolve() for key, path in files.items() if path is not None}
    evaluation = task.evaluation.model_copy(update=given)
    if evaluation == EvaluationFiles():
        raise InputError(
            "there are no prompts to evaluate on: give --harmful, --over-refusal or "
            "--task-prompts (files of prompts, in any format that purify reads)"
        )
    save_settings(
        home, name, task.model_copy(update={"evaluation": evaluation}), flags, assignments
    )
    if dry_on is not None:
        return run_dry(home, name, "purify_and_finetune", dry_on, as_json)
    outcome = run_job(home, name, "purify_and_finetune")
    if outcome.error is not None:
        return failed(name, outcome, as_json)
    document = {
        "task": name,
        "results": _results(home, name),
        "report": str(report_path(home, name)),
        "seconds": round(time.perf_counter() - start, 1),
        "checks": [vars(check) for check in outcome.checks],
    }
    if as_json:
        print_json(document)
    else:
        _print_results(document["results"])
        print_findings(outcome)
        say(f"report: {document['report']}")
    return FINDINGS if outcome.failed_checks else DONE


def run_score(root: Path | None, file: str, name: str, out: Path | None, as_json: bool) -> int:
    from sot_pipeline.defs.scoring import score_rows

    home = Home(root)
    scores, rejected = score_rows(home, name, file)
    if out is not None:
        write_table(scores, out)
    removed = int((~scores["kept"]).sum())
    document = {
        "task": name,
        "num_scored": scores.height,
        "num_below_the_cut": removed,
        "num_rejected": rejected.height,
        "rejected": rejected.to_dicts(),
        "out": str(out) if out else None,
    }
    if as_json:
        print_json(document | {"rows": scores.to_dicts()})
    else:
        shown = scores.sort("log_weight").head(20)
        table(
            f"{removed:,} of {scores.height:,} rows would be removed; the lowest:",
            ["line", "sample_id", "times uniform", "kept", "nearest harmful", "similarity"],
            [
                [
                    f"{row['line']:,}", row["sample_id"], f"{row['relative_weight']:.3g}",
                    "yes" if row["kept"] else "no", row["nearest_harmful"],
                    f"{row['harmful_similarity']:.2f}",
                ]
                for row in shown.iter_rows(named=True)
            ],
        )  # fmt: skip
    return FINDINGS if rejected.height else DONE


def home_of(root: Path | None, dry_on: str | None) -> Home:
    """The project's home; for a dry run one that writes no task."""
    from sot_pipeline.defs.dry_run import PlannedHome

    return Home(root) if dry_on is None else PlannedHome(root)


def run_job(home: Home, name: str, job: str):
    """Run a job of the graph for one task, with its progress shown."""
    from sot_pipeline.cli import runs

    with shown_progress():
        return runs.run_job(home, name, job)


def failed(name: str, outcome: Any, as_json: bool) -> int:
    """Say why a run failed."""
    blocked = [check for check in outcome.failed_checks if check.blocking]
    lines = [f"{check.asset}: {check.check}: {check.description}" for check in blocked]
    error = "\n".join(lines) or outcome.error
    if as_json:
        print_json({"task": name, "error": error, "checks": [vars(c) for c in outcome.checks]})
    say(f"error: {error}")
    return FAILED


def current(home: Home, name: str, asset: str):
    """A task's current version of an asset.

    Raises:
        InputError: there is none.
    """
    from sot_pipeline.defs.store import Store

    stored = Store(home.store).current(name, asset)
    if stored is None:
        raise InputError(f"task {name!r} has no {asset} yet")
    return stored


def report_path(home: Home, name: str, asset: str = "safety_report") -> Path:
    return current(home, name, asset).directory / "report.html"


def _results(home: Home, name: str) -> list[dict[str, Any]]:
    scores = current(home, name, "comparison").table()
    results = []
    for (method, seed), rows in scores.group_by(["method", "seed"], maintain_order=True):
        values = dict(zip(rows["score"], rows["value"], strict=True))
        entry: dict[str, Any] = {"method": method, "seed": seed}
        entry |= {short: values.get(long) for short, long in SCORE_COLUMNS.items()}
        costs = ("seconds", "seconds_per_step", "defence_seconds_per_step", "peak_memory_bytes")
        results.append(entry | {name: rows[name][0] for name in costs})
    return results


def _print_results(results: list[dict[str, Any]]) -> None:
    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    table(
        "",
        ["method", "seed", "HmS ↓", "HpS ↑", "accuracy ↑", "over-refusal ↓", "task loss ↓", "seconds",
         "s/step"],
        [
            [r["method"], str(r["seed"]), *(number(r[key]) for key in SCORE_COLUMNS),
             f"{r['seconds']:.0f}", number(r["seconds_per_step"])]
            for r in results
        ],
        note="HmS: share of harmful prompts answered harmfully. HpS: helpfulness in [0, 1].",
    )  # fmt: skip


def _purify_document(home: Home, name: str, outcome: Any) -> dict[str, Any]:
    texts, weights = current(home, name, "custom_texts"), current(home, name, "sample_weights")
    selected = current(home, name, "selected_samples")
    num_selected = selected.manifest["rows"]
    return {
        "task": name,
        "run_id": outcome.run_id,
        "num_read": texts.document["num_read"],
        "num_rejected": current(home, name, "rejected_rows").manifest["rows"],
        "num_kept": num_selected,
        "num_removed": texts.manifest["rows"] - num_selected,
        "selection": selected.document,
        "transport": weights.document,
        "assets": [vars(asset) for asset in outcome.assets],
        "checks": [vars(check) for check in outcome.checks],
        "export": str(current(home, name, "purified_export").directory),
        "report": str(report_path(home, name, "purification_report")),
    }


def _print_purified(document: Mapping[str, Any]) -> None:
    hits = sum(asset["cache"] == "hit" for asset in document["assets"])
    say(
        f"kept {document['num_kept']:,} of {document['num_read']:,} rows, removed "
        f"{document['num_removed']:,}, rejected {document['num_rejected']:,}   "
        f"({hits} of {len(document['assets'])} assets cached, {duration(document['seconds'])})"
    )
    if document["selection"]["method"] == "calibrated":
        _say_calibrated(document["selection"])
    if "out" in document:
        for path in document["out"]:
            print(path)
    else:
        print(document["export"])
        print(document["report"])
    task = document["task"]
    say(
        f"why a row goes or stays: sot explain {task} ROW   overrule it: sot review export {task} "
        "--out FILE.csv"
    )


def _say_calibrated(cut: Mapping[str, Any]) -> None:
    from sot_pipeline.report.data import held_out_harmful_kept

    say(
        f"an estimated {cut['contamination']:.1%} of the rows ({cut['contamination_low']:.1%} to "
        f"{cut['contamination_high']:.1%}) are like the harmful reference; at most "
        f"{cut['max_false_keep_rate']:.1%} of such rows stay"
    )
    harmful = held_out_harmful_kept(cut["false_keep_rate"], cut["num_held_out_harmful"])
    say(
        f"of reference rows held out, {harmful} harmful ones would stay (of rows like them at most "
        f"{cut['false_keep_rate']:.1%} is to be expected), and {cut['held_out_safe_kept']:.1%} of "
        f"{cut['num_held_out_safe']:,} safe ones"
    )


def print_findings(outcome: Any) -> None:
    for check in outcome.failed_checks:
        say(f"warning: {check.asset}: {check.check}: {check.description}")


def _require_out(out: Path | None) -> None:
    """Say before the work what would be said after it."""
    from sot_pipeline.publishing.folder import require_replaceable

    if out is not None:
        require_replaceable(out.resolve())


def _say_findings(findings: list[str]) -> None:
    for finding in findings:
        say(f"warning: {finding}")


def _write_out(
    home: Home,
    name: str,
    out: Path,
    report: str = "purification_report",
    documents: Mapping[str, Any] | None = None,
) -> tuple[list[str], list[str]]:
    """Write the kept rows with report, documents and manifest to a folder of their own.

    Returns:
        The written files, and sentences that the user should read.
    """
    from sot_pipeline.defs.documents import DocumentOptions, write_purified
    from sot_pipeline.publishing.provenance import MANIFEST, MANIFEST_HASH

    statement, findings = write_purified(
        home, name, out, report_path(home, name, report), DocumentOptions(**(documents or {})), say
    )
    written = [*statement.sizes_and_hashes, MANIFEST, MANIFEST_HASH]
    return [str(out.resolve() / one) for one in written], findings
