"""The model card of an adapter or of a merged model.

Front matter as the Hugging Face hub reads it (huggingface.co/docs/hub/model-cards). There is no
`model-index`: it would set these scores beside those of public benchmarks, and they are measured
on prompts and by a judge of the user's choice.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sot_pipeline.publishing.markdown import Markdown, fenced, front_matter, rendered

# `MaxLoRARanks` of vllm/config/lora.py, vLLM 0.33.0: others are refused when the server starts
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

SCORES = {
    "harmfulness_score": "HmS, harmful answers to harmful prompts ↓",
    "helpfulness_score": "HpS, helpfulness ↑",
    "accuracy": "accuracy on task prompts ↑",
    "over_refusal": "over-refusal of harmless prompts ↓",
    "average": "Average ↑",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_DATA_SET = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+?)(?:@|/|$)")


class TextSetFacts(NamedTuple):
    """One of the three text sets, as it was read; `sha256` is of its files."""

    role: str
    name: str
    num_rows: int
    sha256: str
    licence: str
    locations: tuple[str, ...] = ()


class ScoreFacts(NamedTuple):
    """A score with its 95 % interval, of the adapter and of the base model before it."""

    score: str
    value: float | None
    low: float | None
    high: float | None
    base: float | None
    num_judged: int
    num_missing: int


@dataclass(frozen=True)
class CardFacts:
    """What a card says; every value was recorded when the thing was made.

    Attributes:
        base: Hub id or directory of the base model; `base_kind` says which, "demo" is the model
            that the demo trains for itself.
        text_sets: custom, safe, harmful.
        data_fingerprint: Changes with any row of the three sets and any training weight.
        adapter_version: Changes with those, every setting and the code.
        num_rows, num_removed: Custom rows that it learnt from, and that were left out.
        effective_sample_size: Of the training weights, in rows.
        selection: The cut's method and numbers.
        lora: Settings of adapter and optimiser. `further`: other settings of the training, its
            defences among them.
        training: What happened: steps, tokens, loss.
        scores: Empty where nothing was measured for exactly this adapter; `no_scores` says why.
        merged: Dtype and measured differences of a merged model, None for an adapter.
        data_documents: Relative path of the folder with the rows and their documents, None where
            there is none beside the card.
    """

    task: str
    base: str
    base_kind: Literal["hub", "directory", "demo"]
    base_revision: str | None
    text_sets: Sequence[TextSetFacts]
    data_fingerprint: str
    adapter_version: str
    num_rows: int
    num_removed: int
    effective_sample_size: float
    weighted: bool
    selection: Mapping[str, Any]
    rank: int
    lora: Mapping[str, Any]
    further: Mapping[str, Any]
    training: Mapping[str, Any]
    scores: Sequence[ScoreFacts] = ()
    judge: str | None = None
    no_scores: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    merged: Mapping[str, Any] | None = None
    data_documents: str | None = None


def model_card(facts: CardFacts) -> str:
    """The card as Markdown with YAML front matter; no value in it is read as markup."""
    return rendered(
        "model_card.md.jinja",
        facts=facts,
        head=_front_matter(facts),
        scores=[(SCORES.get(score.score, score.score), score) for score in facts.scores],
        load=fenced(_loading_code(facts), "python"),
        serve=_serving(facts),
        number=_number,
    )


def vllm_rank(rank: int) -> int | None:
    """The smallest `--max-lora-rank` that vLLM takes for an adapter; None where there is none."""
    return next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)


def serve_command(facts: CardFacts) -> str | None:
    """The `vllm serve` line, to be run in the card's folder; None where vLLM cannot."""
    if facts.merged is not None:
        return shlex.join(["vllm", "serve", ".", "--served-model-name", facts.task])
    rank = vllm_rank(facts.rank)
    if rank is None:
        return None
    revision = ["--revision", facts.base_revision] if facts.base_revision else []
    return shlex.join(
        ["vllm", "serve", facts.base, *revision, "--enable-lora", "--max-lora-rank", str(rank),
         "--lora-modules", f"{facts.task}=."]
    )  # fmt: skip


def _serving(facts: CardFacts) -> Markdown | None:
    command = serve_command(facts)
    return None if command is None else fenced(command, "sh")


def _front_matter(facts: CardFacts) -> Markdown:
    on_hub = facts.base_kind == "hub" and _HUB_ID.fullmatch(facts.base)
    found = [
        _HUB_DATA_SET.match(location)
        for text_set in facts.text_sets
        if text_set.role == "custom"
        for location in text_set.locations
    ]
    data_sets = list(dict.fromkeys(match[1] for match in found if match))
    merged = facts.merged is not None
    return front_matter(
        {
            # a directory of this machine means nothing on the hub, and is refused there
            "base_model": facts.base if on_hub else None,
            "base_model_relation": ("finetune" if merged else "adapter") if on_hub else None,
            "datasets": data_sets or None,
            "library_name": "transformers" if merged else "peft",
            "pipeline_tag": "text-generation",
            "tags": [*([] if merged else ["lora"]), "safety", "data-selection", "sot_pipeline"],
        }
    )


def _loading_code(facts: CardFacts) -> str:
    if facts.merged is not None:
        return (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained(".", dtype="auto")\n'
            'tokenizer = AutoTokenizer.from_pretrained(".")'
        )
    arguments = [json.dumps(facts.base)]
    if facts.base_revision:
        arguments.append(f"revision={json.dumps(facts.base_revision)}")
    return (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'base = AutoModelForCausalLM.from_pretrained({", ".join(arguments)}, dtype="auto")\n'
        'model = PeftModel.from_pretrained(base, ".")\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")'
    )


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or value != value else f"{value:.{digits}f}"
