"""What training-time defences learn safety from; nothing of it is an evaluation prompt."""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from sot_pipeline.defs.assets.base_model import base_model_path
from sot_pipeline.defs.assets.evaluation import evaluation_files, make_judge, prompt_sets
from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
from sot_pipeline.defs.home import TaskFile
from sot_pipeline.defs.methods import read_by
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.store import Artifact, Check, Stored
from sot_pipeline.errors import InputError

BASE_MODEL_REFUSES = CheckSpec(
    "base_model_refuses",
    "The base model refuses most prompts of the harmful reference: it is an aligned one.",
)
SCHEMA = {"sample_id": pl.String, "messages": pl.String, "source": pl.String}
BATCH_SIZE = 32  # prompts at once; halved where memory runs out
LEAST_SHARE_REFUSED = 0.5


def _is_read(asset: str, settings: Settings) -> bool:
    return asset in read_by(settings.defences)


def _fields_of(asset: str, *names: str) -> Any:
    """Settings of the block `defence`, as `cached_asset(parts_of_settings=...)` takes them."""

    def fields(settings: Settings) -> Mapping[str, Any]:
        if not _is_read(asset, settings):
            return {}
        return {"defence": settings.defence.model_dump(include=set(names))}

    return fields


def _judge_name(settings: Settings) -> str:
    """Of the judges that need no server: whether an answer is a refusal is seen by its wording."""
    return "demo" if settings.evaluation.judge == "demo" else "keyword"


def _refusals(settings: Settings, prompts: list[Any], answers: list[str]) -> list[bool]:
    judge = make_judge(settings.evaluation.model_copy(update={"judge": _judge_name(settings)}))
    verdicts = judge.judge(prompts, answers, "refusal")
    return [verdict is not None and verdict >= 0.5 for verdict in verdicts]


def _source_of(asset: str) -> Any:
    """Identity of the judge and of the evaluation prompts to leave out, where that is read."""

    def source(files: TaskFile, settings: Settings) -> Mapping[str, Any]:
        if not _is_read(asset, settings):
            return {}
        return {"judge": _judge_name(settings), **evaluation_files(files, settings)}

    return source


def _evaluated(files: TaskFile) -> set[str]:
    """What the task's evaluation prompts ask."""
    from sot_pipeline.finetuning.demonstrations import asked

    return {text for prompts in prompt_sets(files).values() for text in asked(prompts.prompts)}


@cached_asset(
    group="adapter",
    kinds={"torch", "huggingface"},
    parts_of_settings=_fields_of(
        "safety_demonstrations", "num_demonstrations", "refusal", "max_answer_tokens", "seed"
    ),
    content_versioned=True,
    uses=lambda settings, name: _is_read("safety_demonstrations", settings),
    source=_source_of("safety_demonstrations"),
    checks=(BASE_MODEL_REFUSES,),
)
def safety_demonstrations(
    stage: Stage, harmful_texts: pl.DataFrame, aligned_base_model: Stored
) -> Artifact:
    """Prompts of the harmful reference with the base model's own refusals, or a general one where
    it does not refuse: what defences learn from. Empty where no defence asks for it."""
    if not _is_read("safety_demonstrations", stage.settings):
        unasked = "not computed: no defence learns from demonstrations"
        return Artifact(
            table=pl.DataFrame(schema=SCHEMA),
            metadata={"safety_demonstrations": unasked},
            checks=(check(BASE_MODEL_REFUSES, True, unasked),),
        )
    from sot_pipeline.finetuning.demonstrations import draw_prompts

    settings = stage.settings.defence
    prompts = _prompts(harmful_texts)
    drawn = draw_prompts(
        prompts, settings.num_demonstrations, seed=settings.seed, leave_out=_evaluated(stage.files)
    )
    if not drawn.places:
        raise InputError(
            f"no prompt is left to demonstrate safety with: the harmful reference has "
            f"{harmful_texts.height:,} rows, of which {drawn.num_left_out:,} are evaluation "
            "prompts of this task. Give a harmful reference with others"
        )
    chosen = [prompts[place] for place in drawn.places]
    answers = _own_answers(stage, aligned_base_model, chosen)
    refused = _refusals(stage.settings, chosen, answers)
    table = pl.DataFrame(
        {
            "sample_id": harmful_texts["sample_id"].gather(drawn.places),
            "messages": [
                _answered(prompt, answer if own else settings.refusal)
                for prompt, answer, own in zip(chosen, answers, refused, strict=True)
            ],
            "source": ["own answer" if own else "generic" for own in refused],
        },
        schema=SCHEMA,
    )
    numbers = {
        "num_own_answers": sum(refused),
        "num_generic": len(refused) - sum(refused),
        "num_evaluation_prompts_left_out": drawn.num_left_out,
        "num_repeated": drawn.num_repeated,
    }
    return Artifact(
        table=table, document=numbers, metadata=numbers, checks=(_refuses(sum(refused), refused),)
    )


def _refuses(num_refused: int, refused: list[bool]) -> Check:
    share = num_refused / len(refused)
    return check(
        BASE_MODEL_REFUSES,
        share >= LEAST_SHARE_REFUSED,
        f"the base model refused {num_refused:,} of {len(refused):,} prompts of the harmful "
        "reference; the others get the general refusal of defence.refusal",
        share=share,
    )


def _prompts(texts: pl.DataFrame) -> list[Any]:
    from sot_pipeline.texts.conversation import prompt_turns

    return [
        prompt_turns(json.loads(messages), has_response=response is not None)
        for messages, response in texts.select("messages", "response").iter_rows()
    ]


def _own_answers(stage: Stage, base_model: Stored, prompts: list[Any]) -> list[str]:
    from sot_pipeline.evaluation.generate import generate_answers
    from sot_pipeline.finetuning.demonstrations import whole_sentences
    from sot_pipeline.language_model import load_language_model

    path, revision = base_model_path(base_model)
    answers = generate_answers(
        load_language_model(path, revision=revision),
        prompts,
        max_new_tokens=stage.settings.defence.max_answer_tokens,
        batch_size=BATCH_SIZE,
        progress=stage.progress("prompts", "answers of the base model"),
    )
    return [whole_sentences(answer) for answer in answers]


def _answered(prompt: Any, answer: str) -> str:
    from sot_pipeline.texts.conversation import canonical_text

    return canonical_text([*prompt, {"role": "assistant", "content": answer}])


@cached_asset(
    group="adapter",
    kinds={"polars"},
    parts_of_settings=_fields_of("harmless_prompts", "num_harmless_prompts", "seed"),
    content_versioned=True,
    uses=lambda settings, name: _is_read("harmless_prompts", settings),
    source=_source_of("harmless_prompts"),
)
def harmless_prompts(
    stage: Stage, safe_texts: pl.DataFrame, training_samples: pl.DataFrame
) -> Artifact:
    """Prompts that the safe reference answers and, where these are too few, kept rows do: what
    defences tell harmful ones from. Empty where no defence asks for it."""
    if not _is_read("harmless_prompts", stage.settings):
        unasked = "not computed: no defence reads harmless prompts"
        return Artifact(table=pl.DataFrame(schema=SCHEMA), metadata={"harmless_prompts": unasked})
    wanted, leave_out = stage.settings.defence.num_harmless_prompts, _evaluated(stage.files)
    safe = _harmless(stage, safe_texts, "safe reference", wanted, leave_out)
    kept = _harmless(stage, training_samples, "kept row", wanted - safe.height, leave_out)
    table = pl.concat([safe, kept])
    numbers = {"num_of_safe_reference": safe.height, "num_of_kept_rows": kept.height}
    return Artifact(table=table, document=numbers, metadata=numbers)


def _harmless(
    stage: Stage, texts: pl.DataFrame, source: str, wanted: int, leave_out: set[str]
) -> pl.DataFrame:
    """Prompts that are answered: what a trusted row refuses is no harmless prompt."""
    from sot_pipeline.finetuning.demonstrations import draw_prompts
    from sot_pipeline.texts.conversation import canonical_text, last_answer

    rows = [json.loads(messages) for messages in texts["messages"]]
    ends = [last_answer(row) for row in rows]
    prompts = [row[:end] for row, end in zip(rows, ends, strict=True)]
    answers = [row[end]["content"] for row, end in zip(rows, ends, strict=True)]
    refused = _refusals(stage.settings, prompts, answers)
    places = [place for place, is_refusal in enumerate(refused) if not is_refusal]
    candidates = [prompts[place] for place in places]
    seed = stage.settings.defence.seed
    drawn = draw_prompts(candidates, max(wanted, 0), seed=seed, leave_out=leave_out)
    chosen = [places[k] for k in drawn.places]
    return pl.DataFrame(
        {
            "sample_id": texts["sample_id"].gather(chosen),
            "messages": [canonical_text(prompts[place]) for place in chosen],
            "source": [source] * len(chosen),
        },
        schema=SCHEMA,
    )
