"""`sot paper`: the paper's experiments as presets; prepared, and planned without running."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sot_pipeline.cli.amounts import minutes, minutes_between, size
from sot_pipeline.cli.options import HomeOption, JsonOption
from sot_pipeline.cli.output import DONE, FINDINGS, print_json, say, shown_progress, table
from sot_pipeline.errors import InputError

paper = typer.Typer(
    name="paper",
    help="The paper's experiments: list the presets, prepare their text sets, plan their cost.",
    no_args_is_help=True,
)

HUB = "hub"
PresetArgument = Annotated[str, typer.Argument(help="BACKBONE-CUSTOMSET; see `sot paper list`")]
ChangesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="BLOCK.FIELD=VALUE", help="A setting, or draw.NAME of what is drawn"
    ),
]


@paper.command("list")
def list_(json: JsonOption = False) -> None:
    """Every preset: its backbone and its custom set.

    Examples:
      sot paper list
    """
    from sot_pipeline.defs.paper import load_preset, preset_names

    presets = [load_preset(name) for name in preset_names()]
    rows = [
        {
            "preset": preset.name,
            "backbone": preset.settings["base_model.name"].value,
            "custom": preset.sources["custom"].files,
            "licences": sorted({source.licence for source in preset.sources.values()}),
        }
        for preset in presets
    ]
    if json:
        print_json({"presets": rows})
    else:
        table(
            "",
            ["preset", "backbone", "custom rows from"],
            [[row["preset"], row["backbone"], row["custom"]] for row in rows],
        )
    sys.exit(DONE)


@paper.command()
def prepare(
    preset: PresetArgument,
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="DIR|hub", help="Folder with OWNER/NAME/FILE of each data set, or hub"
        ),
    ] = HUB,
    changes: ChangesOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Draw a preset's text sets from the published data and write its task file.

    Example: sot paper prepare qwen3-8b-agnews --from downloads/

    Examples:
      sot paper prepare llama-3.1-8b-slimorca --from hub
    """
    from sot_pipeline.defs.home import Home
    from sot_pipeline.defs.paper import load_preset
    from sot_pipeline.defs.paper_texts import prepare_preset

    chosen = load_preset(preset)
    settings, draw = _changes(changes or [])
    with shown_progress():
        prepared = prepare_preset(
            Home(home), chosen, draw, settings, None if source == HUB else Path(source)
        )
    document = {"preset": preset, "task": str(prepared.task), **prepared.manifest}
    document["folder"] = str(prepared.folder)
    if json:
        print_json(document)
    else:
        counts = prepared.manifest["counts"]
        say(
            f"removed because a training row asks the same: "
            f"{counts['removed_harmful_prompts']:,} harmful and "
            f"{counts['removed_task_prompts']:,} task prompts; "
            f"{counts['shared_questions_custom_harmful']:,} questions are both in the custom set "
            "and in the harmful reference, as published"
        )
        for name, facts in prepared.manifest["files"].items():
            print(f"{prepared.folder / name}  {facts['rows']:,} rows")
        print(f"next: sot purify --task {preset}")
    sys.exit(DONE)


@paper.command()
def plan(
    preset: PresetArgument,
    device: Annotated[
        str, typer.Option(help="cpu (this machine), h200, h100, a100-80gb, a100-40gb, l40s, l4")
    ] = "h200",
    changes: ChangesOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Dry run: every setting with its origin, sources, and what each stage will take.

    Needs neither weights nor a network. Rows are counted where `sot paper prepare` has written
    them, else assumed. Exit code 3: something does not fit into the device's memory.

    Examples:
      sot paper plan llama-3.1-8b-slimorca --device h100
    """
    from sot_pipeline.defs.hardware import device as find_device
    from sot_pipeline.defs.home import Home
    from sot_pipeline.defs.paper import load_preset, make_draw, resolve_preset
    from sot_pipeline.defs.paper_plan import make_plan
    from sot_pipeline.defs.paper_texts import prepared_draw, preset_workload, task_layer
    from sot_pipeline.defs.settings import environment_layer, file_layer

    chosen, place = load_preset(preset), Home(home)
    settings_layer, draw_changes = _changes(changes or [])
    before = [file_layer(place.root / "settings.yaml"), environment_layer()]
    after = [task_layer(place, chosen), ("command line", settings_layer)]
    settings, origin = resolve_preset(chosen, before=before, after=after)
    prepared = None if draw_changes else prepared_draw(place, chosen)
    draw = prepared or make_draw(chosen, draw_changes)
    workload = preset_workload(place, chosen, draw, settings)
    document = make_plan(chosen, settings, origin, draw, workload, find_device(device))
    if json:
        print_json(document)
    else:
        _print_plan(document)
    sys.exit(DONE if all(stage["fits"] for stage in document["stages"]) else FINDINGS)


def _changes(assignments: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Settings and draws of `--set`; giving one of a pair empties the other."""
    import yaml

    from sot_pipeline.cli.task_files import EXCLUDES

    settings: dict[str, dict[str, Any]] = {}
    draw: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or key.count(".") != 1:
            raise InputError(f"--set {assignment}: expected block.field=value")
        block, _, field = key.partition(".")
        if block == "draw":
            draw[field] = yaml.safe_load(value)
            continue
        settings.setdefault(block, {})[field] = yaml.safe_load(value)
        for other in EXCLUDES.get(key, ()):
            settings[block][other] = None
    return settings, draw


def _print_plan(document: Mapping[str, Any]) -> None:
    import json

    def shown(value: Any) -> str:
        return "" if value is None else json.dumps(value, ensure_ascii=False).strip('"')

    named = [row for row in document["settings"] if row["origin"] != "default"]
    num_default = len(document["settings"]) - len(named)
    table(
        f"{document['preset']}: settings",
        ["setting", "value", "from", "note"],
        [[r["setting"], shown(r["value"]), r["origin"], r["note"]] for r in named]
        + [[f"draw.{r['name']}", shown(r["value"]), r["origin"], r["note"]]
           for r in document["draw"]]
        + [[f"({r['name']})", r["value"], r["origin"], r["note"]] for r in document["fixed"]],
        note=f"{num_default} more keep their defaults: `--json` lists all. (In brackets: no settings.)",
    )  # fmt: skip
    sources = [[r["role"], r["name"], r["licence"], r["files"]] for r in document["sources"]]
    for r in document["models"]:
        size = f"{r['parameters'] / 1e9:.2f} billion parameters ({r['shape']})"
        sources.append([r["role"], r["name"], r["licence"], f"{size}, commit {r['revision']}"])
    table("\nsources", ["what", "name", "licence", "where, or size"], sources)
    table(
        "\ntokens a row",
        ["set", "rows", "prompt", "answer", "basis"],
        [[role, f"{t['num_rows']:,}", f"{t['prompt']:.0f}", f"{t['answer']:.0f}", t["basis"]]
         for role, t in document["texts"].items()],
    )  # fmt: skip
    _print_cost(document)


def _print_cost(document: Mapping[str, Any]) -> None:
    device, total = document["device"], document["total"]
    rows = [
        [s["asset"], minutes_between(s["seconds"]), f"{s['memory'] / 1e9:.1f} GB"
         + ("" if s["fits"] else " (does not fit)"), size(s["disk"]), s["basis"]]
        for s in document["stages"]
    ]  # fmt: skip
    rows.append(
        ["together", minutes_between(total["seconds"]), f"{total['memory'] / 1e9:.1f} GB",
         size(total["disk"]), f"and {size(total['download'])} of models and data to fetch"]
    )  # fmt: skip
    low, high = device["utilisation"]
    table(
        f"\non {device['name']}",
        ["asset", "time", "peak memory", "disk", "of"],
        rows,
        note=f"{device['flops'] / 1e12:,.2f} TFLOP/s at {low:.0%} to {high:.0%}, assumed; "
        f"{device['memory'] / 1e9:,.0f} GB at {device['bandwidth'] / 1e9:,.0f} GB/s "
        f"({device['source']}). The solve runs on the CPU, as it was measured there.",
    )
    judge = document["judge"]
    if judge["requests"]:
        say(
            f"the judge: {judge['requests']:,} requests for {judge['models']} models' answers"
            f"{' and the rows of alpagasus' if judge['graded_rows'] else ''}, "
            f"about {judge['input_tokens'] / 1e6:.1f} million tokens in and "
            f"{judge['output_tokens'] / 1e6:.2f} million out"
        )
    table(
        "\nagainst the paper (A11)",
        ["part", "paper", "here", "times the paper's", "paper GB", "here GB", "times the paper's"],
        [[r["part"], minutes(r["paper_seconds"]), minutes_between(r["seconds"]),
          "{:.2f} to {:.2f}".format(*r["seconds_over_paper"]), f"{r['paper_gigabytes']:.2f}",
          f"{r['gigabytes']:.1f}", f"{r['gigabytes_over_paper']:.2f}"]
         for r in document["paper_cost"]],
        note="The paper states neither its hardware nor the model and set of these figures.",
    )  # fmt: skip
