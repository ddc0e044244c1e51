"""The commands of `sot`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sot_pipeline.cli.judges import judges
from sot_pipeline.cli.options import (
    AnonymousOption,
    DeviceOption,
    DryRunOption,
    HomeOption,
    JsonOption,
    RedactOption,
    TaskOption,
    WhoOption,
    dry_device,
    known_tasks,
)
from sot_pipeline.cli.output import FAILED, say
from sot_pipeline.cli.paper import paper
from sot_pipeline.cli.references import references
from sot_pipeline.cli.review import review
from sot_pipeline.errors import InputError, storage_error

app = typer.Typer(
    name="sot",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# panels of `sot --help`, in the order of their first command
START, LOOK, MEASURE, UPKEEP = "From rows to a model", "Look", "Measure and compare", "Upkeep"

INTERRUPTED = 130  # as shells report Ctrl-C

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="BLOCK.FIELD=VALUE", help="Any setting; see `sot config`"),
]


class Trainer(StrEnum):
    axolotl = "axolotl"
    llamafactory = "llamafactory"
    trl = "trl"


JUDGES = "keyword, openai, classifier, embedding or demo; their fields are evaluation.judge_*"
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder to write the results to")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from sot_pipeline import __version__

        typer.echo(f"sot_pipeline {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Find and remove the fine-tuning rows that erode a language model's safety."""


def run() -> None:
    """Run the command line; errors that a user can mend are printed without a traceback."""
    try:
        app()
    except InputError as error:
        say(f"error: {error}")
        sys.exit(FAILED)
    except (KeyboardInterrupt, SystemExit) as ended:
        # typer turns Ctrl-C into an exit that says nothing
        if isinstance(ended, SystemExit) and ended.code != INTERRUPTED:
            raise
        say("stopped; what was finished is kept, the same command goes on from there")
        sys.exit(INTERRUPTED)
    except Exception as error:
        refused = storage_error(error)
        if refused is None:
            raise
        say(f"error: {refused}")
        sys.exit(FAILED)


@app.command(rich_help_panel=START)
def demo(
    home: HomeOption = None,
    json: JsonOption = False,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method")] = 3,
    world: Annotated[int, typer.Option(help="Seed of the generated text sets")] = 0,
    out: OutOption = None,
) -> None:
    """Everything end to end on generated text, with no network: purify, train, measure, report.

    Examples:
      sot demo
      sot demo --seeds 1 --out demo-results
    """
    from sot_pipeline.cli.commands import run_demo

    sys.exit(run_demo(home, seeds=seeds, world_seed=world, out=out, as_json=json))


@app.command(rich_help_panel=START)
def purify(
    custom: Annotated[
        list[str] | None,
        typer.Argument(
            help="Fine-tuning rows: files, globs, folders, URLs (leave out to run --task again)"
        ),
    ] = None,
    safe: Annotated[
        list[str] | None, typer.Option(help="Trusted safe reference; may be repeated")
    ] = None,
    harmful: Annotated[
        list[str] | None, typer.Option(help="Harmful reference; may be repeated")
    ] = None,
    task: TaskOption = None,
    embedder: Annotated[
        str | None, typer.Option(help="minilm, a Hugging Face model id, a directory, or base")
    ] = None,
    keep: Annotated[
        float | None, typer.Option(help="Share of the rows to keep (default: 0.8)")
    ] = None,
    keep_count: Annotated[int | None, typer.Option(help="Rows to keep, instead")] = None,
    method: Annotated[
        str | None, typer.Option(help="top_k, or calibrated: the cut is found (default: top_k)")
    ] = None,
    max_false_keep_rate: Annotated[
        float | None,
        typer.Option(help="calibrated: share of harmful rows that may stay (default: 0.05)"),
    ] = None,
    lambda_push: Annotated[float | None, typer.Option(help="λ of Eq. 5 (default: 0.5)")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Regularisation, in cosine cost")] = None,
    base_model: Annotated[str | None, typer.Option(help="The model to fine-tune later")] = None,
    format: Annotated[str | None, typer.Option(help="Row format (default: auto)")] = None,
    show_text: Annotated[bool, typer.Option(help="Put excerpts of rows into the report")] = False,
    redact_pii: RedactOption = False,
    who: WhoOption = None,
    anonymous: AnonymousOption = False,
    settings: SetOption = None,
    out: OutOption = None,
    dry_run: DryRunOption = False,
    device: DeviceOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Weigh the rows of CUSTOM by push-pull optimal transport and drop the worst.

    Examples:
      sot purify rows.jsonl --safe safe.jsonl --harmful harmful.jsonl --out purified/
      sot purify rows.jsonl --safe safe.jsonl --harmful harmful.jsonl --dry-run
      sot purify --task rows --keep 0.9
    """
    from sot_pipeline.cli.commands import run_purify

    flags: dict[str, Any] = {
        "embedding.encoder": embedder,
        "selection.keep_fraction": keep,
        "selection.keep_count": keep_count,
        "selection.method": method,
        "selection.max_false_keep_rate": max_false_keep_rate,
        "transport.lambda_push": lambda_push,
        "transport.epsilon": epsilon,
        "base_model.name": base_model,
        "texts.format": format,
        "report.show_text": show_text or None,
    }
    sources = (custom or [], safe or [], harmful or [])
    if out is None and (redact_pii or who is not None or anonymous):
        raise typer.BadParameter("--redact-pii, --who and --anonymous are about what --out writes")
    documents = {"redact_pii": redact_pii, "who": who, "anonymous": anonymous}
    dry_on = dry_device(dry_run, device)
    sys.exit(run_purify(home, task, sources, flags, settings or [], out, json, documents, dry_on))


@app.command(rich_help_panel=START)
def finetune(
    task: Annotated[
        str, typer.Argument(help="A task that `sot purify` made", autocompletion=known_tasks)
    ],
    base_model: Annotated[
        str | None, typer.Option(help="Hugging Face id or directory of the aligned model")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    epochs: Annotated[float | None, typer.Option()] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, instead of --epochs")] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank")] = None,
    packing: Annotated[
        bool | None, typer.Option(help="Lay rows one behind the other instead of padding them")
    ] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    defence: Annotated[
        str | None,
        typer.Option(
            help="What keeps the model safe meanwhile: none, safe_instr, safe_reference, spf, "
            "safegrad, sbr, spag or refusalguard_reimpl (default: none)"
        ),
    ] = None,
    defence_option: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION=VALUE", help="One of the defence's own; see `sot config`"),
    ] = None,
    settings: SetOption = None,
    out: OutOption = None,
    dry_run: DryRunOption = False,
    device: DeviceOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Fine-tune a LoRA adapter on a task's purified rows with their learned weights.

    Examples:
      sot finetune mytask --base-model meta-llama/Llama-3.1-8B-Instruct --out adapter/
      sot finetune mytask --defence spf --defence-option rank=10
      sot finetune mytask --dry-run --device h100
    """
    from sot_pipeline.cli.commands import run_finetune

    flags: dict[str, Any] = {
        "base_model.name": base_model,
        "finetuning.learning_rate": learning_rate,
        "finetuning.num_epochs": epochs,
        "finetuning.num_steps": steps,
        "finetuning.rank": rank,
        "finetuning.packing": packing,
        "finetuning.seed": seed,
        "defence.name": defence,
    }
    if epochs is not None and steps is not None:
        raise typer.BadParameter("--epochs and --steps exclude each other")
    options, dry_on = defence_option or [], dry_device(dry_run, device)
    sys.exit(run_finetune(home, task, flags, options, settings or [], out, json, dry_on))


@app.command(rich_help_panel=START)
def evaluate(
    task: Annotated[
        str, typer.Argument(help="A task that has an adapter", autocompletion=known_tasks)
    ],
    harmful: Annotated[Path | None, typer.Option(help="Harmful prompts")] = None,
    over_refusal: Annotated[Path | None, typer.Option(help="Harmless, risky-looking ones")] = None,
    task_prompts: Annotated[Path | None, typer.Option(help="Task prompts with answers")] = None,
    judge: Annotated[str | None, typer.Option(help=JUDGES)] = None,
    judge_base_url: Annotated[str | None, typer.Option()] = None,
    judge_model: Annotated[str | None, typer.Option()] = None,
    compare: Annotated[
        bool, typer.Option(help="Also plain fine-tuning and random removal")
    ] = False,
    settings: SetOption = None,
    dry_run: DryRunOption = False,
    device: DeviceOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Measure harmfulness, helpfulness, accuracy and over-refusal of base model and adapter.

    Examples:
      sot evaluate mytask --harmful prompts.jsonl --task-prompts task.jsonl --judge openai --judge-base-url http://127.0.0.1:8000/v1 --judge-model NAME
    """
    from sot_pipeline.cli.commands import run_evaluate

    files = {"harmful": harmful, "over_refusal": over_refusal, "task": task_prompts}
    flags: dict[str, Any] = {
        "evaluation.judge": judge,
        "evaluation.judge_base_url": judge_base_url,
        "evaluation.judge_model": judge_model,
    }
    dry_on = dry_device(dry_run, device)
    sys.exit(run_evaluate(home, task, files, flags, settings or [], compare, json, dry_on))


@app.command(rich_help_panel=MEASURE)
def compare(
    task: Annotated[
        str, typer.Argument(help="A task that `sot purify` made", autocompletion=known_tasks)
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B+C,...", help="SELECTION or SELECTION+DEFENCE (default: every selection)"
        ),
    ] = None,
    without: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Methods to leave out")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings of each method (default: 1)")
    ] = None,
    selections_only: Annotated[
        bool, typer.Option("--selections-only", help="Which rows each keeps; train nothing")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(help="The truth about the rows: id, label (harmful, refusal, benign), source"),
    ] = None,
    settings: SetOption = None,
    out: OutOption = None,
    dry_run: DryRunOption = False,
    device: DeviceOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Every method on the same rows under the same budget, in one table.

    Quality of its choice where labels are known, harm and help of the model trained on it,
    time and memory.

    Selections:

    - sot (this project); parts of it: sot_cut, sot_reweight, sot_one_shot

    - other transport: sot_balanced (the paper's), sot_pull, sot_push

    - rivals: dsir, saft, seal, larf, toss, alpagasus, guard

    - on the references: logistic_regression, knn, centroid

    - no selection: sft (all rows), random, sft_clean

    Examples:
      sot compare mytask --without guard,alpagasus --labels labels.jsonl
      sot compare mytask --selections-only --methods knn,dsir,saft,sot
    """
    from sot_pipeline.cli.compare import run_compare

    sys.exit(
        run_compare(
            home,
            task,
            methods,
            without,
            seeds,
            selections_only,
            labels,
            settings or [],
            out,
            json,
            dry_device(dry_run, device),
        )
    )


@app.command(rich_help_panel=MEASURE)
def experiment(
    name: Annotated[
        str, typer.Argument(help="ablation, lambda, keep, contamination, embedders, or all")
    ],
    task: Annotated[
        str,
        typer.Argument(
            help="A task with a base model and evaluation prompts", autocompletion=known_tasks
        ),
    ],
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings of each variation (default: 3)")
    ] = None,
    settings: SetOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """The paper's experiments on your task, and whether its trends show.

    What each part of the method does, and every lambda, cut, share of harm and encoder.

    Examples:
      sot experiment ablation mytask --out results
    """
    from sot_pipeline.cli.experiment import run_experiment

    sys.exit(run_experiment(home, name, task, seeds, settings or [], out, json))


@app.command(rich_help_panel=LOOK)
def score(
    file: Annotated[str, typer.Argument(help="New rows, whatever purify reads them from")],
    task: Annotated[
        str,
        typer.Option(
            "--task", help="The purified task to score against", autocompletion=known_tasks
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Write the scores to .parquet or .csv")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Score new rows against a task's solved weights, with no new solve.

    Examples:
      sot score new_rows.jsonl --task mytask --out scores.csv
    """
    from sot_pipeline.cli.commands import run_score

    sys.exit(run_score(home, file, task, out, json))


@app.command(rich_help_panel=START)
def export(
    task: Annotated[
        str, typer.Argument(help="A purified or fine-tuned task", autocompletion=known_tasks)
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder, or that of an earlier export")],
    merge: Annotated[bool, typer.Option(help="Also base model and adapter as one model")] = False,
    merge_dtype: Annotated[
        Literal["stored", "float32", "bfloat16", "float16"],
        typer.Option(help="Of the merged weights; stored: as the base model's"),
    ] = "stored",
    trainer: Annotated[
        list[Trainer] | None,
        typer.Option(help="Also a ready folder for this trainer; may be repeated"),
    ] = None,
    resample: Annotated[
        bool | None,
        typer.Option(help="Copy rows in proportion to their weights, which trainers cannot take"),
    ] = None,
    resample_factor: Annotated[
        float | None,
        typer.Option(min=0.01, max=1000, help="Copies per row on average (default: 1.0)"),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="For the trainers, where the task has no adapter")
    ] = None,
    redact_pii: RedactOption = False,
    who: WhoOption = None,
    anonymous: AnonymousOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Take results elsewhere: the purified rows, the adapter, folders for other trainers.

    Rows come with dataset card, Croissant metadata, provenance and a summary for compliance, the
    adapter with its model card, on request merged with the base model.

    Examples:
      sot export mytask --out exported/
      sot export mytask --out exported/ --merge --trainer trl --resample
      sot export mytask --out exported/ --redact-pii
    """
    from sot_pipeline.cli.export import run_export

    if resample is False and resample_factor is not None:
        raise typer.BadParameter("--resample-factor and --no-resample exclude each other")
    if (resample or resample_factor is not None or base_model is not None) and not trainer:
        raise typer.BadParameter("--resample, --resample-factor and --base-model need a --trainer")
    resampled = resample or resample_factor is not None
    options = {
        "merge_dtype": merge_dtype if merge else None,
        "trainers": tuple(dict.fromkeys(one.value for one in trainer or ())),
        "resample_factor": (resample_factor or 1.0) if resampled else None,
        "base_model": base_model,
    }
    documents = {"redact_pii": redact_pii, "who": who, "anonymous": anonymous}
    sys.exit(run_export(home, task, out, options, documents, json))


@app.command(rich_help_panel=START)
def verify(
    folder: Annotated[
        Path | None, typer.Argument(help="What `sot export` or `sot purify --out` wrote")
    ] = None,
    inputs: Annotated[
        bool,
        typer.Option("--inputs", help="Also fail where an input file is not on this machine"),
    ] = False,
    store: Annotated[
        bool, typer.Option("--store", help="Also compare with the artefacts in the store")
    ] = False,
    expect: Annotated[
        str | None, typer.Option(metavar="SHA256", help="Hash that provenance.json must have")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of provenance.json")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Check a folder of results: every hash, and that the documents agree.

    The input files too, where they are on this machine. Exits 0 if all is well, 3 if not.

    Examples:
      sot verify exported/
      sot verify exported/ --store
    """
    from sot_pipeline.cli.verify import print_schema, run_verify

    if schema:
        sys.exit(print_schema())
    if folder is None:
        raise typer.BadParameter("name the folder to check")
    sys.exit(run_verify(home, folder, inputs, store, expect, json))


@app.command(rich_help_panel=LOOK)
def status(task: TaskOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """Each task's assets: current, stale (and because of what), missing or running.

    Examples:
      sot status
      sot status --task mytask --json
    """
    from sot_pipeline.cli.status import run_status

    sys.exit(run_status(home, task, json))


@app.command(rich_help_panel=LOOK)
def explain(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TASK] ROW",
            help="ROW is a sample id or its beginning, the row's own id, a line, or FILE:LINE; the "
            "only task need not be named",
        ),
    ] = None,
    worst: Annotated[int | None, typer.Option(min=1, metavar="N", help="The worst N rows")] = None,
    borderline: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The N rows nearest to the cut")
    ] = None,
    show_text: Annotated[
        bool, typer.Option(help="Print the row and the named reference rows, which may be harmful")
    ] = False,
    rewrite: Annotated[
        bool,
        typer.Option("--rewrite", help="Have a model word the paragraph; used if it adds no fact"),
    ] = False,
    base_url: Annotated[
        str | None, typer.Option(help="--rewrite: of an OpenAI-compatible endpoint")
    ] = None,
    model: Annotated[str | None, typer.Option(help="--rewrite: the model's name there")] = None,
    api_key_env: Annotated[
        str, typer.Option(help="--rewrite: the environment variable that holds the key")
    ] = "OPENAI_API_KEY",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Why a row stays or goes, in plain words.

    With the reference rows that it was matched with, what would have to differ for it to change
    sides, and which methods disagree.

    Examples:
      sot explain mytask custom.jsonl:12
      sot explain 3f2a --show-text
      sot explain mytask --borderline 5 --json
    """
    from sot_pipeline.cli.explain import Chosen, Rewriting, run_explain

    if not rewrite and (base_url or model):
        raise typer.BadParameter("--base-url and --model need --rewrite")
    rewriting = Rewriting(base_url, model, api_key_env) if rewrite else None
    chosen = Chosen(words or [], worst, borderline)
    sys.exit(run_explain(home, chosen, rewriting, show_text, json))


@app.command(rich_help_panel=LOOK)
def diff(
    task: Annotated[
        str | None,
        typer.Argument(help="A purified task (default: the only one)", autocompletion=known_tasks),
    ] = None,
    before: Annotated[str, typer.Argument(help="A version: ~1 is one before the latest")] = "~1",
    after: Annotated[str, typer.Argument(help="A version: ~0 is the latest")] = "~0",
    list_versions: Annotated[bool, typer.Option("--list", help="List the versions")] = False,
    out: Annotated[Path | None, typer.Option(help="Write every change to .parquet or .csv")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """What changed between two purifications: rows, sides of the cut and why, weights, scores.

    Examples:
      sot diff mytask
      sot diff mytask ~3 ~0 --out changes.csv
    """
    from sot_pipeline.cli.diff import run_diff

    sys.exit(run_diff(home, task, before, after, list_versions, out, json))


@app.command(rich_help_panel=UPKEEP)
def gc(
    keep_versions: Annotated[
        int, typer.Option(min=0, help="Last versions of each asset that every task keeps")
    ] = 3,
    dry_run: Annotated[bool, typer.Option(help="Only say what would go")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Remove versions that nothing needs any more, and what crashed attempts left.

    Examples:
      sot gc --dry-run
      sot gc --keep-versions 1
    """
    from sot_pipeline.cli.gc import run_gc

    sys.exit(run_gc(home, keep_versions=keep_versions, dry_run=dry_run, as_json=json))


@app.command(rich_help_panel=UPKEEP)
def doctor(home: HomeOption = None, json: JsonOption = False) -> None:
    """Check this machine: Python, libraries, devices, disk, the store.

    Examples:
      sot doctor
    """
    from sot_pipeline.cli.inspect import run_doctor

    sys.exit(run_doctor(home, json))


@app.command(rich_help_panel=UPKEEP)
def config(
    task: TaskOption = None,
    schema: Annotated[bool, typer.Option(help="Print the JSON Schema of the settings")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Every setting, its value and where the value comes from.

    Examples:
      sot config --task mytask
      sot config --schema
    """
    from sot_pipeline.cli.inspect import run_config

    sys.exit(run_config(home, task, schema, json))


@app.command(rich_help_panel=LOOK)
def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1")] = 3000,
    home: HomeOption = None,
) -> None:
    """Open the Dagster UI on this machine only, with the history kept under the home folder.

    Examples:
      sot ui --port 3001
    """
    from sot_pipeline.cli.ui import run_ui

    run_ui(home, port)


app.add_typer(review, rich_help_panel=LOOK)
app.add_typer(references, rich_help_panel=MEASURE)
app.add_typer(judges, rich_help_panel=MEASURE)
app.add_typer(paper, rich_help_panel=MEASURE)
