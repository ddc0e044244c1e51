"""The paper's experiments as presets: a backbone and a custom set, each value marked as the
paper's or as ours.

presets/settings.yaml    settings that every preset has
presets/backbones.yaml   the models that are fine-tuned
presets/text_sets.yaml   what is drawn, from which public data, and the custom sets
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sot_pipeline.defs.settings import Layer, Settings, read_yaml, resolve_settings
from sot_pipeline.defs.workload import TextLengths, Workload, assumed, together
from sot_pipeline.errors import InputError, nearest
from sot_pipeline.texts.contaminate import Draw

FOLDER = Path(__file__).parent / "presets"
PAPER, OURS = "paper", "ours"
# Which source fills which role beside the custom set's own rows
SHARED_ROLES = {
    "contamination": "hh_train",
    "harmful": "beavertails",
    "harmful_prompts": "hh_test",
}
# What the paper states and the code does whatever the settings say
FIXED = {
    "precision": ("bfloat16 on a GPU, float32 on the CPU", PAPER, "bf16, App. A1"),
    "optimizer": ("AdamW", PAPER, "App. A1"),
    "optimizer.betas": ("0.9, 0.95, no weight decay", OURS, "not stated; SEAL's scripts"),
    "cost": ("cosine distance", PAPER, "of frozen representations"),
    "representation": ("last layer, last token", PAPER, "section 4"),
    "objective": (
        "Eq. 5 + tau KL(w || uniform)",
        PAPER,
        "the KL term is ours: transport.target_ess",
    ),
    "gradient": ("dual potentials at convergence", OURS, "not stated; exact (Danskin)"),
}


class Marked(NamedTuple):
    """A value and whose it is: "paper" or "ours"; `note` says where it stands, or why it is so."""

    value: Any
    origin: str
    note: str


class SourceSpec(NamedTuple):
    """A public data set.

    Attributes:
        files: As `locate` takes them.
        num_bytes: Of its files, as the hub shows them.
        prompt, answer: Tokens of a row, as assumed while it is not here.
    """

    name: str
    layout: str
    files: str
    num_bytes: int
    licence: str
    prompt: float
    answer: float
    basis: str
    note: str


class Preset(NamedTuple):
    """One experiment.

    Attributes:
        settings: Marked values by "block.field".
        draw: Marked values by field of `Draw`.
        sources: By role: custom, contamination, harmful, harmful_prompts, task_prompts.
        model_licences: By model name, of the backbone and the encoder.
    """

    name: str
    backbone: str
    custom_set: str
    settings: Mapping[str, Marked]
    draw: Mapping[str, Marked]
    sources: Mapping[str, SourceSpec]
    model_licences: Mapping[str, str]

    def layers(self) -> list[Layer]:
        """The preset's settings as layers, the paper's and ours."""
        layers = []
        for origin in (PAPER, OURS):
            layer: dict[str, dict[str, Any]] = {}
            for key, marked in self.settings.items():
                if marked.origin == origin:
                    block, _, field = key.partition(".")
                    layer.setdefault(block, {})[field] = marked.value
            layers.append((origin, layer))
        return layers

    def task_settings(self) -> dict[str, dict[str, Any]]:
        """The settings that differ from the defaults by intent, as a task's file holds them."""
        merged: dict[str, dict[str, Any]] = {}
        for _, layer in self.layers():
            for block, fields in layer.items():
                merged.setdefault(block, {}).update(fields)
        return merged


def preset_names(folder: Path = FOLDER) -> list[str]:
    """BACKBONE-CUSTOMSET, every one."""
    backbones = read_yaml(folder / "backbones.yaml")
    custom = read_yaml(folder / "text_sets.yaml")["custom"]
    return [f"{backbone}-{one}" for backbone in backbones for one in custom]


def load_preset(name: str, folder: Path = FOLDER) -> Preset:
    """
    Raises:
        InputError: no such preset, or one of its files does not hold what it should.
    """
    names = preset_names(folder)
    if name not in names:
        raise InputError(f"no preset is called {name!r}; {nearest(name, names)}")
    backbone, _, custom_set = name.rpartition("-")
    where = folder / "text_sets.yaml"
    sets = read_yaml(where)
    own = dict(sets["custom"][custom_set])
    backbones = read_yaml(folder / "backbones.yaml")
    licences = {one["name"][PAPER]: one["licence"] for one in backbones.values()}
    model = {key: value for key, value in backbones[backbone].items() if key != "licence"}
    settings = _flat(read_yaml(folder / "settings.yaml"), folder / "settings.yaml")
    settings |= _flat({"base_model": model}, folder / "backbones.yaml")
    marked = {key: _marked(value, f"{where}: {custom_set}.{key}") for key, value in own.items()}
    settings["evaluation.accuracy"] = marked["accuracy"]
    draw = {key: _marked(value, f"{where}: draw.{key}") for key, value in sets["draw"].items()}
    roles = SHARED_ROLES | {
        "custom": marked["rows"].value,
        "task_prompts": marked["task_prompts"].value,
    }
    sources = {role: _source(sets["sources"], source, where) for role, source in roles.items()}
    draw["references"] = marked["references"]
    return Preset(name, backbone, custom_set, settings, draw, sources, licences)


def resolve_preset(
    preset: Preset,
    *,
    before: Sequence[Layer] = (),
    after: Sequence[Layer] = (),
) -> tuple[Settings, dict[str, str]]:
    """A preset's settings and whose each value is: "paper", "ours", "default", or the name of
    another layer.

    Args:
        before: Layers that the preset overrides, such as the project's settings.yaml.
        after: Layers that override it, such as flags.

    Raises:
        InputError: as `resolve_settings`.
    """
    return resolve_settings([*before, *preset.layers(), *after])


def make_draw(preset: Preset, changes: Mapping[str, Any]) -> Draw:
    """How many rows of what, with changes by hand.

    Raises:
        InputError: an unknown name, or a value of another type.
    """
    values = {name: marked.value for name, marked in preset.draw.items()}
    for name, value in changes.items():
        if name not in values:
            raise InputError(f"draw.{name}: unknown; {nearest(name, list(values))}")
        wanted = type(values[name])
        if isinstance(value, bool) != (wanted is bool) or not isinstance(value, int | float):
            raise InputError(f"draw.{name} = {value!r}: expected a {wanted.__name__}")
        if value < 0 or (wanted is int and value != int(value)):
            raise InputError(f"draw.{name} = {value!r}: expected a {wanted.__name__} from 0 on")
        values[name] = wanted(value)
    return Draw(**values)


def assumed_workload(preset: Preset, draw: Draw) -> Workload:
    """Rows and tokens of the sets that a preset draws, before they are there."""

    def rows(role: str, count: int, *, answers: bool = True) -> TextLengths:
        source = preset.sources[role]
        answer = source.answer if answers else 0
        return assumed(count, source.prompt, answer, f"{source.name}: {source.basis}")

    num_bad = draw.num_contaminated
    return Workload(
        custom=together(
            [rows("custom", draw.num_custom - num_bad), rows("contamination", num_bad)]
        ),
        safe=rows("custom", draw.num_safe),
        harmful=rows("harmful", draw.num_harmful),
        eval_harmful=rows("harmful_prompts", draw.num_harmful_prompts),
        eval_task=rows("task_prompts", draw.num_task_prompts, answers=draw.references),
    )


def _flat(blocks: Mapping[str, Any], where: Path) -> dict[str, Marked]:
    """{"block.field": value} of {block: {field: value}}."""
    flat = {}
    for block, fields in blocks.items():
        if not isinstance(fields, Mapping):
            raise InputError(f"{where}: {block} is {fields!r}, expected fields below it")
        for field, value in fields.items():
            flat[f"{block}.{field}"] = _marked(value, f"{where}: {block}.{field}")
    return flat


def _marked(value: Any, where: str) -> Marked:
    origins = [o for o in (PAPER, OURS) if isinstance(value, Mapping) and o in value]
    if len(origins) != 1 or set(value) != {origins[0], "note"}:
        raise InputError(
            f"{where}: found {value!r}; expected {{paper: VALUE, note: TEXT}} or "
            "{ours: VALUE, note: TEXT}"
        )
    return Marked(value[origins[0]], origins[0], value["note"])


def _source(sources: Mapping[str, Any], name: str, where: Path) -> SourceSpec:
    if name not in sources:
        raise InputError(f"{where}: no source is called {name!r}; {nearest(name, list(sources))}")
    given = sources[name]
    tokens = given["tokens"]
    return SourceSpec(
        name,
        given["layout"],
        given["files"],
        round(given["megabytes"] * 1e6),
        given["licence"],
        tokens["prompt"],
        tokens["answer"],
        tokens["basis"],
        given.get("note", ""),
    )
