"""What a task will cost before it runs: seconds, memory and disk of each asset.

Seconds are an interval: what `model_cost` counts at a low and a high share of the device's peak,
and constants that are no arithmetic, named below with what they rest on. `bench_estimate.py`
compares it all with measured runs (benchmarks/README.md).
"""

import math
from typing import NamedTuple

from sot_pipeline.defs.hardware import Device
from sot_pipeline.defs.methods import Method
from sot_pipeline.defs.model_cost import (
    NOTHING,
    Span,
    cache_bytes,
    forward_flops,
    inference_bytes,
    load_seconds,
    pass_seconds,
    training_bytes,
    training_flops,
)
from sot_pipeline.defs.model_shape import ModelShape
from sot_pipeline.defs.settings import FinetuningSettings, Settings
from sot_pipeline.defs.workload import CHARACTERS_PER_TOKEN, TextLengths, Workload

# Rendering, tokenising and hashing of one row, seconds.
ROW_SECONDS = (2e-4, 2e-3)
# Importing what a stage needs and writing its artefact, seconds.
STAGE_SECONDS = (0.1, 2.0)
# Padded over real tokens: rows of a pass are of similar length (bench_training.py: 34 to 39 %
# of a pass is padding).
PADDING = (1.05, 1.6)
# The solve, from bench_solver.py and bench_scale.py (two CPU cores): sweeps of a cold solve,
# bytes of kernel a second, and jax's import and compiling with the checks' figures.
SWEEPS = (12, 60)
SWEEP_RATE = (2.0e10, 5.0e9)
SOLVE_SECONDS = (0.8, 6.0)
# Peak memory of the process without a model: libraries, tables (measured: 0.6 to 0.9 GB).
PROCESS_BYTES = 700_000_000
# ... and with jax, peft and accelerate, which a stage after the solve has (measured: 1.1 GB).
LATE_PROCESS_BYTES = 1_000_000_000
JUDGE_SECONDS = (1.0, 5.0)  # one request, assumed; `concurrency` of the judge at once
JUDGE_CONCURRENCY = 8
JUDGE_REPLY_TOKENS = 50
# As evaluation/run.py asks, which is slow to import
JUDGED = {"harmful": ("harm", "refusal"), "over_refusal": ("refusal",), "task": ("help",)}
# Selections that leave no row out; how many `sft_clean` does is known once it is read
ON_ALL_ROWS = ("sft", "sft_clean", "toss", "sot_reweight")
EMBEDDING_BATCH = {True: 65_536, False: 8_192}  # tokens of a pass (embedding/encoder.py)
TABLE_BYTES = 600_000  # of a small DuckDB file with its manifest


class StageEstimate(NamedTuple):
    """One asset.

    Attributes:
        memory: Bytes at the highest: of the device for a model, else of the process. On the CPU
            both are one.
        disk: Bytes that the artefact and the row cache take.
        basis: What the figures are computed from.
    """

    asset: str
    seconds: Span
    memory: int
    disk: int
    basis: str


class JudgeCost(NamedTuple):
    """What an LLM judge is asked; tokens are estimates."""

    num_requests: int
    input_tokens: int
    output_tokens: int


def _fixed(num_rows: float = 0) -> Span:
    return Span(*STAGE_SECONDS) + Span(*ROW_SECONDS).times(num_rows)


def estimate_embedding(
    asset: str, texts: TextLengths, shape: ModelShape, device: Device
) -> StageEstimate:
    """One forward pass of every row, without the output layer."""
    if texts.num_rows == 0:
        return StageEstimate(asset, NOTHING, 0, 0, "no rows")
    flops = forward_flops(shape, texts.num_tokens, texts.mean)
    weights = shape.num_parameters * device.dtype_bytes + _process(device)

    def memory_of(batch: float) -> int:
        return int(weights + inference_bytes(shape, batch, device.dtype_bytes))

    batch: float = min(EMBEDDING_BATCH[device.is_gpu], texts.num_tokens)
    while memory_of(batch) > device.memory and batch > texts.longest:
        batch /= 2  # as `embed` does where memory runs out
    passes = texts.num_tokens / batch
    count = Span(math.ceil(passes), math.ceil(passes * PADDING[1]))
    vectors = texts.num_rows * shape.hidden_size * 4
    return StageEstimate(
        asset,
        pass_seconds(shape, flops, count, device)
        + load_seconds(shape, device)
        + _fixed(texts.num_rows),
        memory_of(batch),
        2 * vectors,  # the array, and the row cache
        f"{texts.num_rows:,} rows of {texts.mean:.0f} tokens ({texts.basis})",
    )


def estimate_cost(asset: str, num_rows: int, num_columns: int, dimension: int) -> StageEstimate:
    """A cosine cost matrix, on the CPU."""
    size = 4 * num_rows * num_columns
    flops = 2.0 * num_rows * num_columns * dimension
    seconds = Span(flops / 2e11, flops / 1e10) + Span(0.02, 2.0)
    memory = PROCESS_BYTES + 2 * size + 4 * dimension * (num_rows + num_columns)
    what = f"{num_rows:,} x {num_columns:,} float32 from vectors of {dimension:,}"
    return StageEstimate(asset, seconds, memory, size, what)


def estimate_weights(num_rows: int, num_safe: int, num_harmful: int) -> StageEstimate:
    """The solve of Eq. 5, on the CPU; from the throughput that was measured there."""
    size = 4.0 * num_rows * (num_safe + num_harmful)
    seconds = Span(SWEEPS[0] * size / SWEEP_RATE[0], SWEEPS[1] * size / SWEEP_RATE[1])
    memory = PROCESS_BYTES + 250_000_000 + 2 * size  # jax with its programs; costs and kernels
    return StageEstimate(
        "sample_weights",
        seconds + Span(*SOLVE_SECONDS),
        int(memory),
        TABLE_BYTES + 60 * num_rows,
        f"{SWEEPS[0]} to {SWEEPS[1]} sweeps of {size / 1e6:,.0f} MB on the CPU, with compiling",
    )


def estimate_training(
    asset: str, texts: TextLengths, settings: FinetuningSettings, shape: ModelShape, device: Device
) -> StageEstimate:
    """Weighted LoRA training on these rows; a pass is halved until it fits, as the loop does."""
    if texts.num_rows == 0:
        return StageEstimate(asset, NOTHING, 0, 0, "no rows")
    process = _process(device, LATE_PROCESS_BYTES)
    memory = training_bytes(shape, texts, settings, device.dtype_bytes) + process
    while memory > device.memory and settings.micro_batch_size > 1:  # as the loop does
        half = {"micro_batch_size": settings.micro_batch_size // 2}
        settings = settings.model_copy(update=half)
        memory = training_bytes(shape, texts, settings, device.dtype_bytes) + process
    batch = min(settings.batch_size, texts.num_rows)
    epochs = settings.num_epochs or 0.0
    steps = settings.num_steps or max(1, math.ceil(texts.num_rows * epochs / batch))
    rows = steps * batch
    tokens, answers = rows * texts.mean, rows * texts.answer
    adapter = shape.adapter_parameters(settings.rank, settings.target_modules)
    flops = training_flops(
        shape, tokens, texts.mean, answers, adapter, checkpointing=settings.gradient_checkpointing
    )
    passes = steps * math.ceil(batch / settings.micro_batch_size)
    backward = 4.0 if settings.gradient_checkpointing else 3.0
    padding = Span(1.0, 1.1) if settings.packing else Span(*PADDING)
    low = pass_seconds(shape, flops * padding.low, Span(passes, passes), device, backward).low
    high = pass_seconds(shape, flops * padding.high, Span(passes, passes), device, backward).high
    return StageEstimate(
        asset,
        Span(low, high) + load_seconds(shape, device) + _fixed(texts.num_rows),
        memory,
        4 * adapter + TABLE_BYTES,
        f"{steps:,} steps of {batch} rows, {tokens / 1e6:,.2f} million tokens, "
        f"{adapter / 1e6:,.2f} million parameters",
    )


def estimate_answers(
    workload: Workload, settings: Settings, shape: ModelShape, device: Device
) -> StageEstimate:
    """The answers of one model to all prompt sets, the judge's verdicts, and the loss of the task
    prompts' references where they have some.

    Low: answers are as long as the set's own; high: every batch goes to `max_new_tokens`.
    """
    chosen, seconds, memory, total = settings.evaluation, NOTHING, 0.0, 0
    for texts in prompt_sets(workload, settings):
        batches = math.ceil(texts.num_rows / chosen.batch_size)
        size = min(chosen.batch_size, texts.num_rows)
        answer = texts.answer or workload.custom.answer
        steps = Span(min(max(answer, 1.0), chosen.max_new_tokens), chosen.max_new_tokens)
        flops = forward_flops(shape, texts.num_rows * texts.prompt, texts.prompt)
        seconds += pass_seconds(shape, flops, Span(batches, batches), device)
        for_each = texts.num_rows / batches
        low, high = (
            pass_seconds(
                shape,
                forward_flops(shape, for_each * n, texts.prompt + n, for_each * n),
                Span(n, n), device,
            ) for n in steps
        )  # fmt: skip
        seconds += Span(low.low, high.high).times(batches)
        tokens = size * (min(texts.longest, texts.prompt * 6) + chosen.max_new_tokens)
        memory = max(memory, cache_bytes(shape, tokens, device.dtype_bytes))
        total += texts.num_rows
    if total == 0:
        return StageEstimate("evaluation", NOTHING, 0, 0, "no prompts")
    referenced = workload.eval_task._replace(
        num_rows=min(workload.eval_task.num_rows, chosen.max_prompts or workload.eval_task.num_rows)
    )
    if referenced.answer:
        seconds += scoring_seconds(referenced, chosen.batch_size, shape, device)
    judged = judge_cost(workload, settings)
    if judged.num_requests:
        waits = judged.num_requests / JUDGE_CONCURRENCY
        seconds += Span(*JUDGE_SECONDS).times(waits)
    memory += shape.num_parameters * device.dtype_bytes + _process(device, LATE_PROCESS_BYTES)
    return StageEstimate(
        "evaluation",
        seconds + load_seconds(shape, device) + _fixed(total),
        int(memory),
        TABLE_BYTES + 4 * chosen.max_new_tokens * total,
        f"{total:,} prompts, at most {chosen.max_new_tokens} tokens each, "
        f"{judged.num_requests:,} requests to the judge",
    )


def scoring_seconds(texts: TextLengths, batch_size: int, shape: ModelShape, device: Device) -> Span:
    """One forward pass of rows for the loss of their answers, with a loaded model."""
    if not texts.num_rows:
        return NOTHING
    answers = texts.num_rows * texts.answer
    flops = forward_flops(shape, texts.num_tokens, texts.mean, answers)
    passes = math.ceil(texts.num_rows / batch_size)
    return pass_seconds(shape, flops, Span(passes, math.ceil(passes * PADDING[1])), device)


def prompt_sets(workload: Workload, settings: Settings) -> list[TextLengths]:
    """The evaluation's sets that have rows, as far as `max_prompts` lets them."""
    sets = (workload.eval_harmful, workload.eval_over_refusal, workload.eval_task)
    limit = settings.evaluation.max_prompts
    cut = [s._replace(num_rows=min(s.num_rows, limit or s.num_rows)) for s in sets]
    return [texts for texts in cut if texts.num_rows]


def judge_cost(workload: Workload, settings: Settings) -> JudgeCost:
    """Requests and tokens of an LLM judge for one model's answers; none for the other judges."""
    if settings.evaluation.judge != "openai":
        return JudgeCost(0, 0, 0)
    from sot_pipeline.evaluation.openai_judge import build_request

    requests, tokens = 0, 0.0
    limit = settings.evaluation.max_prompts
    for name, kinds in JUDGED.items():
        texts = getattr(workload, f"eval_{name}")
        rows = min(texts.num_rows, limit or texts.num_rows)
        for kind in kinds:
            asked = build_request(kind, [{"role": "user", "content": ""}], "", None)  # type: ignore[arg-type]
            rubric = sum(len(turn["content"]) for turn in asked) / CHARACTERS_PER_TOKEN
            answer = texts.answer or workload.custom.answer
            requests += rows
            tokens += rows * (rubric + texts.prompt + answer)
    return JudgeCost(requests, round(tokens), requests * JUDGE_REPLY_TOKENS)


def estimate_task(
    settings: Settings,
    workload: Workload,
    encoder: ModelShape,
    base: ModelShape | None,
    device: Device,
) -> list[StageEstimate]:
    """Every asset that takes time, in the graph's order, but for how rivals choose rows
    (`rival_cost.estimate_with_rivals`); no training without a base model."""
    embedded = {
        name: getattr(workload, name).cut(settings.embedding.max_length)
        for name in ("safe", "harmful", "custom")
    }
    stages = [
        estimate_embedding(f"{name}_embeddings", texts, encoder, device)
        for name, texts in embedded.items()
    ]
    rows = workload.custom.num_rows
    dimension = encoder.hidden_size * (2 if _is_apart(settings) else 1)
    stages += [
        estimate_cost("pull_cost", rows, workload.safe.num_rows, dimension),
        estimate_cost("push_cost", rows, workload.harmful.num_rows, dimension),
        estimate_weights(rows, workload.safe.num_rows, workload.harmful.num_rows),
    ]
    if base is None:
        return stages
    whole = workload.custom.cut(settings.finetuning.max_length)
    kept = whole._replace(num_rows=num_kept(settings, rows))
    adapter = estimate_training("adapter", kept, settings.finetuning, base, device)
    answers = estimate_answers(workload, settings, base, device)
    # of the base model and of the adapter
    twice = answers._replace(seconds=answers.seconds.times(2), disk=2 * answers.disk)
    compared = _estimate_comparison(settings, whole, kept, base, device, answers)
    return [*stages, adapter, *([twice] if answers.memory else []), *compared]


def _estimate_comparison(
    settings: Settings,
    whole: TextLengths,
    kept: TextLengths,
    base: ModelShape,
    device: Device,
    answers: StageEstimate,
) -> list[StageEstimate]:
    """Each method once per seed, one after the other, but for what the adapter already is."""
    chosen, own = settings.comparison, (settings.own_method, settings.finetuning.seed)
    methods = [*map(Method.parse, chosen.methods), settings.own_method]
    pairs = [
        (method, seed)
        for method in dict.fromkeys(methods)
        for seed in chosen.seeds
        if (method, seed) != own
    ]
    if not chosen.methods or not pairs:
        return []
    trained = [
        estimate_training(
            "comparison",
            whole if method.selection in ON_ALL_ROWS else kept,
            settings.finetuning,
            base,
            device,
        )
        for method, _ in pairs
    ]
    seconds = answers.seconds.times(len(pairs))
    for one in trained:
        seconds += one.seconds
    return [
        StageEstimate(
            "comparison",
            seconds,
            max(answers.memory, *(one.memory for one in trained)),
            sum(one.disk for one in trained) + len(pairs) * answers.disk,
            f"{len(pairs)} trainings with their answers, without what defences add",
        )
    ]


def num_kept(settings: Settings, num_rows: int) -> int:
    """Rows that the cut keeps; under `calibrated` nobody knows before: all of them."""
    chosen = settings.selection
    if chosen.method != "top_k":
        return num_rows
    if chosen.keep_count is not None:
        return min(chosen.keep_count, num_rows)
    return round((chosen.keep_fraction or 1.0) * num_rows)


def num_models_judged(settings: Settings) -> int:
    """Base model, adapter, and what they are compared with."""
    if not settings.comparison.methods:
        return 2
    methods = {*map(Method.parse, settings.comparison.methods), settings.own_method}
    own = settings.finetuning.seed in settings.comparison.seeds
    return 2 + len(methods) * len(settings.comparison.seeds) - (1 if own else 0)


def _is_apart(settings: Settings) -> bool:
    view, encoder = settings.embedding.view, settings.embedding.encoder
    return view == "apart" or (view == "auto" and encoder == "minilm")


def _process(device: Device, num_bytes: int = PROCESS_BYTES) -> int:
    return 0 if device.is_gpu else num_bytes
