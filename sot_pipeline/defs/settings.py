"""One tree of settings: a frozen block per stage, and where each value came from.

A block holds what may change a number; it is part of the fingerprint of the assets that
read it. What must not change a number (device, workers, folders) lives in `home.py`.

Layers, later ones win: the defaults here, `data/settings.yaml`, environment variables
`SOT__BLOCK__FIELD`, the task's own file in `data/tasks/`, which command-line flags write.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from sot_pipeline.defs.methods import READS, SELECTIONS, DefenceName, Method
from sot_pipeline.errors import InputError, nearest

# Names of encoders that are no folder, whatever lies in the working directory
PACKAGED_MODELS = ("minilm", "base")


class Block(BaseModel):
    """A frozen settings block; a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class TextSettings(Block):
    format: Literal[
        "auto", "openai", "alpaca", "sharegpt", "prompt_completion", "prompt_response"
    ] = Field(default="auto", description="row format of the text sets; auto detects it per file")
    max_row_megabytes: float = Field(default=8.0, gt=0, description="a longer row is rejected")
    prompt_only_harmful: bool = Field(
        default=False,
        description="the harmful reference may hold prompts without an answer, such as collections "
        "of attacks",
    )


class BaseModelSettings(Block):
    name: str | None = Field(
        default=None,
        description="the aligned model to fine-tune: a Hugging Face id, a directory, or 'demo'",
    )
    revision: str | None = Field(default=None, description="commit of a Hugging Face model")


class EmbeddingSettings(Block):
    encoder: str = Field(
        default="minilm",
        description="'minilm', a Hugging Face causal model id, a directory, "
        "or 'base' for the task's base model",
    )
    revision: str | None = Field(default=None, description="commit of a Hugging Face model")
    max_length: int = Field(default=2048, ge=8, description="tokens; longer rows are truncated")
    view: Literal["auto", "whole", "apart"] = Field(
        default="auto",
        description="whole: a row is one text; apart: what was asked and the answer are embedded "
        "each by itself; auto: apart for sentence encoders, whole for causal models",
    )


class TransportSettings(Block):
    lambda_push: float = Field(default=0.5, ge=0, le=1, description="λ of Eq. 5; 0 = pull only")
    epsilon: float | None = Field(
        default=None, gt=0, description="regularisation in units of the cosine cost; empty: scaled"
    )
    epsilon_in_spreads: float = Field(
        default=2.0,
        gt=0,
        description="when epsilon is empty: multiple of the costs' spread within a row",
    )
    tau: float | None = Field(default=None, ge=0, description="strength of KL(w || uniform)")
    target_ess: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="effective sample size to reach, as a share of the rows; "
        "tau, where given, decides instead",
    )
    reference_relaxation: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="0: all of a reference takes part; 1: only what matches",
    )
    centre: bool = Field(
        default=True, description="take angles from the mean of the safe reference"
    )
    optimizer: Literal["mirror", "adam", "one_shot"] = "mirror"
    tolerance: float = Field(
        default=1e-3, gt=0, description="stationarity residual at which to stop"
    )
    max_steps: int = Field(default=200, ge=1)


class SelectionSettings(Block):
    method: Literal["top_k", "calibrated"] = Field(
        default="top_k",
        description="top_k keeps as many rows as keep_fraction or keep_count say; calibrated keeps "
        "the rows below max_false_keep_rate and reads neither",
    )
    keep_fraction: float | None = Field(
        default=0.8, gt=0, le=1, description="top_k: share of rows kept"
    )
    keep_count: int | None = Field(
        default=None, ge=1, description="top_k: rows kept; instead of the share"
    )
    max_false_keep_rate: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="calibrated: largest share to keep of the rows that are like the harmful "
        "reference's; needs 1 / rate held-out harmful rows",
    )
    held_out_share: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="calibrated: share of both references that the weights do not learn from",
    )
    split_seed: int = Field(default=0, ge=0, description="calibrated: which rows are held out")
    temperature: float = Field(default=1.0, gt=0, description="softens the training weights")
    clip_low: float = Field(default=0.2, gt=0, description="least training weight, mean 1")
    clip_high: float = Field(default=5.0, gt=0, description="largest training weight, mean 1")

    @model_validator(mode="after")
    def _one_way_to_say_how_many(self) -> "SelectionSettings":
        counts = (self.keep_fraction is None) == (self.keep_count is None)
        if self.method == "top_k" and counts:
            raise ValueError("give either keep_fraction or keep_count, and leave the other empty")
        return self


class FinetuningSettings(Block):
    rank: int = Field(default=16, ge=1, description="LoRA rank")
    lora_alpha: int = Field(default=16, ge=1)
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    learning_rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_fraction: float = Field(default=0.03, ge=0, lt=1)
    num_epochs: float | None = Field(default=2.0, gt=0)
    num_steps: int | None = Field(
        default=None, ge=1, description="optimiser steps; instead of epochs"
    )
    batch_size: int = Field(default=64, ge=1, description="rows per optimiser step")
    micro_batch_size: int = Field(default=8, ge=1, description="rows per forward pass")
    max_length: int = Field(
        default=2048, ge=8, description="tokens; longer rows lose their beginning"
    )
    normalisation: Literal["sample_mean", "token_mean", "sample_sum"] = Field(
        default="sample_mean",
        description="sample_mean: rows count by weight; token_mean: answer tokens do; sample_sum: "
        "long answers count for more than their row",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of the target mass spread over the vocabulary"
    )
    max_gradient_norm: float = Field(
        default=1.0, gt=0, description="a step's gradient is shortened to this length"
    )
    packing: bool = Field(
        default=False, description="rows one behind the other instead of padded; none sees another"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="compute activations twice instead of keeping them: less memory"
    )
    compile: bool = Field(default=False, description="run the model through torch.compile")
    weighted: bool = Field(
        default=True, description="learn with the rows' weights, not only the cut"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _one_way_to_say_how_long(self) -> "FinetuningSettings":
        if (self.num_epochs is None) == (self.num_steps is None):
            raise ValueError("give either num_epochs or num_steps, and leave the other empty")
        return self


OptionValue = bool | int | float | str
RivalOption = OptionValue | tuple[str, ...] | None


class DefenceSettings(Block):
    """What keeps the model safe while it learns, beside the choice of its rows."""

    name: DefenceName = Field(
        default="none",
        description="safe_instr: safety demonstrations among the rows; safe_reference: the safe "
        "reference's rows too, as a control; the others change the training steps",
    )
    num_demonstrations: int = Field(
        default=128,
        ge=1,
        description="prompts of the harmful reference that the base model answers, to learn from",
    )
    refusal: str = Field(
        default="I'm sorry, but I can't help with that.",
        min_length=1,
        description="the answer where the base model's own is no refusal",
    )
    max_answer_tokens: int = Field(
        default=256, ge=1, description="longest demonstration; an unfinished last sentence goes"
    )
    num_harmless_prompts: int = Field(
        default=128,
        ge=1,
        description="prompts of the safe reference, and of kept rows where these are too few, for "
        "defences that compare both sorts",
    )
    seed: int = Field(default=0, ge=0, description="which prompts are drawn")
    mix_share: float = Field(
        default=0.03,
        gt=0,
        lt=1,
        description="safe_instr: share of demonstrations among the rows; 0.03 is Bianchi et al. "
        "(2024)",
    )
    options: dict[str, dict[str, OptionValue]] = Field(
        default={}, description="the methods' own, as {method: {option: value}}; unnamed ones keep "
        "their defaults, see `sot config`"
    )  # fmt: skip

    @field_validator("name", mode="before")
    @classmethod
    def _known_name(cls, name: Any) -> Any:
        if not isinstance(name, str) or name not in READS:
            raise ValueError(f"no defence is called {name!r}; {nearest(str(name), list(READS))}")
        return name

    @field_validator("options")
    @classmethod
    def _options_of_their_methods(
        cls, options: dict[str, dict[str, OptionValue]]
    ) -> dict[str, dict[str, OptionValue]]:
        for name, chosen in options.items():
            check_options(name, chosen)
        return options

    def of(self, name: str) -> dict[str, Any]:
        """What of these settings decides a training with this defence, apart from what the
        defence learns from."""
        chosen: dict[str, Any] = {"name": name}
        if name == "safe_instr":
            chosen["mix_share"] = self.mix_share
        if self.options.get(name):
            chosen["options"] = self.options[name]
        return chosen


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """See that a defence has these options.

    Raises:
        InputError: naming the nearest one that it has.
    """
    from sot_pipeline.finetuning.defences.registry import DEFENCES, make_defence  # torch: slow

    if name not in READS:
        raise InputError(f"no defence is called {name!r}; {nearest(name, list(READS))}")
    if name in DEFENCES:
        make_defence(name, options)
    elif options:  # methods that only mix rows
        fields = "defence.mix_share" if name == "safe_instr" else "no setting of its own"
        raise InputError(f"{name} has no options; it reads {fields}")


class RepurificationSettings(Block):
    """What a small change leaves as it was, when a task is purified again."""

    centre_tolerance: float = Field(
        default=0.001,
        ge=0,
        description="an earlier centre stays while the mean has moved by no more than this share "
        "of the safe rows' distance from it; costs that did not change are then kept",
    )
    retrain_tolerance: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="an earlier adapter stays while the training weights have moved by no more "
        "than this (total variation: 0 the same, 1 other rows altogether)",
    )


class EvaluationSettings(Block):
    judge: Literal["keyword", "demo", "openai", "classifier", "embedding"] = Field(
        default="keyword",
        description="keyword is a floor; openai is any OpenAI-compatible endpoint; classifier a "
        "local sequence classifier; embedding learns from labelled answers",
    )
    judge_model: str | None = Field(default=None, description="the endpoint's model name")
    judge_base_url: str | None = Field(default=None, description="the endpoint's address")
    judge_api_key_env: str = Field(
        default="OPENAI_API_KEY", description="name of the variable that holds the key"
    )
    judge_rubric: Literal["own", "hex_phi", "strong_reject"] = Field(
        default="own",
        description="openai: what harm is graded by; own: harm done, 1 to 5; hex_phi: breach of a "
        "policy, 1 to 5; strong_reject: not refused, convincing, specific",
    )
    judge_policy: str | None = Field(
        default=None, min_length=1, description="hex_phi: the policy's text; empty: a general one"
    )
    judge_classifier: str | None = Field(
        default=None, description="classifier: a directory or a Hugging Face id"
    )
    judge_classifier_revision: str | None = Field(
        default=None, description="classifier: commit of a Hugging Face model"
    )
    judge_harmful_labels: tuple[str, ...] = Field(
        default=(), description="classifier: its labels that mean harm"
    )
    judge_labelled: str | None = Field(
        default=None,
        description="embedding: answers that people judged (parquet, csv or jsonl), see "
        "`sot judges agreement`",
    )
    judge_encoder: str = Field(
        default="minilm", min_length=1, description="embedding: as embedding.encoder, but not base"
    )
    judge_threshold: float = Field(
        default=0.5, gt=0, lt=1, description="classifier, embedding: probability that counts as yes"
    )
    accuracy: Literal["exact", "last_number", "label"] = Field(
        default="exact", description="how an answer is compared with the task's reference answer"
    )
    max_new_tokens: int = Field(default=512, ge=1)
    batch_size: int = Field(default=32, ge=1, description="prompts generated at once")
    max_prompts: int | None = Field(
        default=None, ge=1, description="first prompts of each set only"
    )
    num_resamples: int = Field(default=2000, ge=100, description="bootstrap resamples")


class RivalSettings(Block):
    """Other ways to choose rows, which a comparison sets beside this project's own."""

    guard_model: str | None = Field(
        default=None, description="guard: a Hugging Face sequence classifier, or a directory"
    )
    guard_revision: str | None = Field(default=None, description="commit of a Hugging Face model")
    guard_labels: tuple[str, ...] = Field(
        default=(), description="guard: the classifier's labels that mean harm"
    )
    larf_layer: int | None = Field(
        default=None,
        ge=0,
        description="larf: hidden states of this layer (0: embeddings); empty: the layer whose "
        "scaling moves the base model's refusals most",
    )
    options: dict[str, dict[str, RivalOption]] = Field(
        default={}, description="the rivals' own, as {rival: {option: value}}; unnamed ones keep "
        "their defaults, see `sot config`"
    )  # fmt: skip

    @field_validator("options")
    @classmethod
    def _options_of_their_rivals(
        cls, options: dict[str, dict[str, RivalOption]]
    ) -> dict[str, dict[str, RivalOption]]:
        from sot_pipeline.defs.rivals import check_options  # reads the settings itself

        for name, chosen in options.items():
            check_options(name, chosen)
        return options


class ComparisonSettings(Block):
    methods: tuple[str, ...] = Field(
        default=(),
        description="what to set beside the task's adapter, as SELECTION or SELECTION+DEFENCE "
        "(sft+spf). Selections: " + ", ".join(SELECTIONS) + "; see `sot compare --help`",
    )
    selections: tuple[str, ...] = Field(
        default=(), description="further selections to compare without training on them"
    )
    seeds: tuple[int, ...] = Field(
        default=(0,), min_length=1, description="each method is trained once per seed"
    )

    @field_validator("selections")
    @classmethod
    def _known_selections(cls, selections: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(Method.parse(name).selection for name in selections))

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(Method.parse(method)) for method in methods))


Share = Annotated[float, Field(ge=0, le=1)]


class ExperimentSettings(Block):
    """What the paper's experiments vary; see `sot experiment --help`."""

    seeds: tuple[int, ...] = Field(
        default=(0, 1, 2), min_length=1, description="each variation is trained once per seed"
    )
    lambdas: tuple[Share, ...] = Field(
        default=(0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0), min_length=1, description="of the push"
    )
    keep_fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(1.0, 0.9, 0.8, 0.7, 0.6, 0.5), min_length=1, description="shares of rows kept"
    )
    harmful_fractions: tuple[Annotated[float, Field(ge=0, lt=0.9)], ...] = Field(
        default=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5), min_length=1, description="harmful shares mixed in"
    )
    encoders: tuple[str, ...] = Field(
        default=("base", "minilm"), min_length=1, description="as embedding.encoder"
    )


class ReportSettings(Block):
    show_text: bool = Field(
        default=False, description="include excerpts of rows; harmful text is in them"
    )
    max_rows: int = Field(default=500, ge=1, description="rows per table")


class Settings(Block):
    """Every setting of a task. `Settings()` is the default for real text."""

    texts: TextSettings = TextSettings()
    base_model: BaseModelSettings = BaseModelSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    transport: TransportSettings = TransportSettings()
    selection: SelectionSettings = SelectionSettings()
    repurification: RepurificationSettings = RepurificationSettings()
    finetuning: FinetuningSettings = FinetuningSettings()
    defence: DefenceSettings = DefenceSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    rivals: RivalSettings = RivalSettings()
    comparison: ComparisonSettings = ComparisonSettings()
    experiments: ExperimentSettings = ExperimentSettings()
    report: ReportSettings = ReportSettings()

    @property
    def own_method(self) -> Method:
        """Of the task's adapter."""
        return Method("sot", self.defence.name)

    @property
    def defences(self) -> list[str]:
        """Every defence that the adapter or a compared method is trained with, sorted."""
        compared = (Method.parse(method).defence for method in self.comparison.methods)
        return sorted({self.defence.name, *compared})


Layer = tuple[str, Mapping[str, Any]]  # where it comes from, {block: {field: value}}


def resolve_settings(layers: list[Layer]) -> tuple[Settings, dict[str, str]]:
    """Merge layers into `Settings`, and say where each value came from.

    Returns:
        The settings, and `{"block.field": origin}` for every field.

    Raises:
        InputError: naming the layer, the field, what was found and what is allowed.
    """
    merged: dict[str, dict[str, Any]] = {}
    origin = {
        f"{block}.{field}": "default"
        for block, info in Settings.model_fields.items()
        for field in type(info.default).model_fields
    }
    for source, layer in layers:
        for block, fields in layer.items():
            if block not in Settings.model_fields:
                raise InputError(_unknown(source, block, list(Settings.model_fields)))
            if not isinstance(fields, Mapping):
                raise InputError(f"{source}: {block} is {fields!r}, expected fields below it")
            for field, value in fields.items():
                known = type(Settings.model_fields[block].default).model_fields
                if field not in known:
                    raise InputError(_unknown(source, f"{block}.{field}", list(known)))
                merged.setdefault(block, {})[field] = value
                origin[f"{block}.{field}"] = source
    try:
        return Settings.model_validate(merged), origin
    except ValidationError as error:
        raise InputError(_describe(error, origin)) from None


def environment_layer(environ: Mapping[str, str] = os.environ) -> Layer:
    """`SOT__TRANSPORT__EPSILON=0.1` as a settings layer."""
    layer: dict[str, dict[str, Any]] = {}
    for name, value in environ.items():
        if name.startswith("SOT__"):
            parts = name.lower().split("__")[1:]
            if len(parts) != 2:
                raise InputError(f"environment variable {name}: expected SOT__BLOCK__FIELD")
            layer.setdefault(parts[0], {})[parts[1]] = yaml.safe_load(value)
    return "environment", layer


def file_layer(path: Path) -> Layer:
    """A YAML file of settings as a layer; an absent file is an empty layer."""
    if not path.exists():
        return str(path), {}
    return str(path), read_yaml(path)


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected `name: value` lines")
    return content


def _unknown(source: str, name: str, known: list[str]) -> str:
    return f"{source}: no setting is called {name!r}; {nearest(name.split('.')[-1], known)}"


def _describe(error: ValidationError, origin: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        source = origin.get(".".join(name.split(".")[:2]), "settings")
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{source}: {name} = {problem['input']!r}: {message}")
    return "\n".join(lines)
