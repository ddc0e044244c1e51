"""Estimates: known sizes, laws, and what a settings change does to them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.defs import estimate, hardware, model_cost
from sot_pipeline.defs.estimate import (
    StageEstimate,
    estimate_cost,
    estimate_embedding,
    estimate_task,
    estimate_training,
    estimate_weights,
    judge_cost,
    num_kept,
    num_models_judged,
)
from sot_pipeline.defs.hardware import GPUS, Device, this_cpu
from sot_pipeline.defs.model_cost import (
    Span,
    activation_bytes,
    forward_flops,
    logits_bytes,
    pass_seconds,
    training_bytes,
    training_flops,
)
from sot_pipeline.defs.model_shape import PUBLISHED, model_shape, read_shape
from sot_pipeline.defs.settings import FinetuningSettings, Settings
from sot_pipeline.defs.workload import NO_ROWS, TextLengths, Workload, assumed, counted, together
from sot_pipeline.errors import InputError
from sot_pipeline_tests.published import metamathqa_row, write_jsonl
from sot_pipeline_tests.tiny_models import save_tiny_model

LLAMA, QWEN, GEMMA = (
    PUBLISHED[name]
    for name in ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B", "google/gemma-3-4b-it")
)
H200 = GPUS["h200"]
ROWS = TextLengths(5000, 250, 200, 2048, "given")
sizes = st.floats(0, 1e9)


# Shapes


@pytest.mark.parametrize(
    ("shape", "parameters", "tolerance"),
    [
        (LLAMA, 8_030_261_248, 1e-4),  # of its checkpoint
        (QWEN, 8.2e9, 5e-3),  # model card
        (GEMMA, 4.3e9, 5e-3),  # model card
    ],
)
def test_published_shapes_have_the_published_number_of_parameters(shape, parameters, tolerance):
    assert shape.num_parameters == pytest.approx(parameters, rel=tolerance)


def test_the_linear_layers_of_qwen3_8b_have_as_many_weights_as_its_checkpoint():
    assert QWEN.layer_parameters == 6_945_767_424  # 252 matrices of 36 layers


def test_the_adapter_has_as_many_parameters_as_peft_makes():
    # rank x (inputs + outputs): 16 x (8,192 + 5,120) x 32
    assert LLAMA.adapter_parameters(16, ("q_proj", "v_proj")) == 6_815_744


def test_a_model_directory_is_read_as_peft_and_torch_count_it(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    directory = save_tiny_model(tmp_path / "model")
    shape = read_shape(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    matrices = sum(p.numel() for name, p in model.named_parameters() if "norm" not in name)
    assert shape.num_parameters == matrices
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert shape.adapter_parameters(4, ("q_proj", "v_proj")) == trained


def test_a_model_that_is_nowhere_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(InputError, match=r"hf download owner/name config\.json"):
        model_shape("owner/name")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(InputError, match="does not describe a language model"):
        read_shape(tmp_path)


# Arithmetic


def test_a_forward_pass_is_two_operations_for_each_weight_and_attention():
    assert forward_flops(LLAMA, 1, 0) == 2 * LLAMA.layer_parameters
    attention = forward_flops(LLAMA, 1, 100) - forward_flops(LLAMA, 1, 0)
    assert attention == 4 * 32 * 4096 * 100
    assert forward_flops(LLAMA, 0, 0, logits=1) == 2 * 4096 * 128256


@given(tokens=sizes, factor=st.floats(0, 100))
def test_arithmetic_is_linear_in_the_tokens(tokens, factor):
    one = training_flops(LLAMA, tokens, 450, 0.4 * tokens, 10**6, checkpointing=False)
    more = training_flops(
        LLAMA, factor * tokens, 450, 0.4 * factor * tokens, 10**6, checkpointing=False
    )
    assert more == pytest.approx(factor * one, rel=1e-9)


def test_frozen_weights_make_training_two_forward_passes_and_checkpointing_three():
    forward = forward_flops(LLAMA, 1000, 0)
    plain = training_flops(LLAMA, 1000, 0, 0, 0, checkpointing=False)
    assert plain == 2 * forward
    assert training_flops(LLAMA, 1000, 0, 0, 0, checkpointing=True) == 3 * forward


@given(low=st.integers(1, 256), more=st.integers(1, 256))
def test_time_and_memory_grow_with_the_rank(low, more):
    roomy = H200._replace(memory=10**13)  # no pass is halved
    before, after = (
        estimate_training("adapter", ROWS, FinetuningSettings(rank=rank), LLAMA, roomy)
        for rank in (low, low + more)
    )
    assert before.seconds.high < after.seconds.high
    assert before.memory < after.memory
    assert before.disk < after.disk


def test_checkpointing_needs_less_memory_and_more_time():
    plain, checkpointed = (
        estimate_training("a", ROWS, FinetuningSettings(gradient_checkpointing=on), LLAMA, H200)
        for on in (False, True)
    )
    assert checkpointed.memory < plain.memory
    assert checkpointed.seconds.low > plain.seconds.low


def test_smaller_passes_need_less_memory_down_to_the_weights():
    memory = [
        training_bytes(LLAMA, ROWS, FinetuningSettings(micro_batch_size=size), 2)
        for size in (1, 2, 4, 8)
    ]
    assert memory == sorted(memory)
    assert memory[0] > 2 * LLAMA.num_parameters


def test_a_large_vocabulary_costs_memory_where_answers_are_learned():
    # 16 bytes a logit in bfloat16: as computed, float32, logarithm, both gradients
    assert logits_bytes(GEMMA, 100, 2) == 100 * 262208 * 16
    assert logits_bytes(GEMMA, 0, 2) == 0
    assert activation_bytes(LLAMA, 0, 2) == 0


def test_a_pass_that_must_read_its_weights_takes_that_long_on_a_fast_device():
    fast = H200._replace(flops=1e30)
    span = pass_seconds(LLAMA, 1.0, Span(10, 10), fast)
    assert span.low >= 10 * 2 * LLAMA.layer_parameters / fast.bandwidth


# Stages


@given(rows=st.integers(1, 10**6))
def test_the_interval_of_every_stage_is_ordered_and_nothing_is_negative(rows):
    texts = ROWS._replace(num_rows=rows)
    workload = Workload(texts, texts, texts, texts, texts, texts)
    settings = Settings.model_validate({"comparison": {"methods": ["sft"], "seeds": [0, 1]}})
    for stage in estimate_task(settings, workload, LLAMA, LLAMA, H200):
        assert 0 < stage.seconds.low <= stage.seconds.high, stage
        assert stage.memory > 0
        assert stage.disk > 0


def test_no_rows_cost_nothing():
    nothing = StageEstimate("a", Span(0, 0), 0, 0, "no rows")
    assert estimate_embedding("a", NO_ROWS, LLAMA, H200) == nothing
    assert estimate_training("a", NO_ROWS, FinetuningSettings(), LLAMA, H200) == nothing
    assert estimate_cost("pull_cost", 0, 50, 4096).disk == 0
    names = [s.asset for s in estimate_task(
        Settings(), Workload(NO_ROWS, NO_ROWS, NO_ROWS), LLAMA, LLAMA, H200
    )]  # fmt: skip
    assert "evaluation" not in names


def test_a_solve_of_the_measured_sizes_contains_the_measured_seconds():
    # bench_solver.py, compilation outside the clock; bench_scale.py, with it
    solve = estimate_weights(50_000, 2000, 2000)
    assert solve.seconds.low < 1.34 + 1.6 < solve.seconds.high
    whole = estimate_weights(1_000_000, 1000, 1000)
    assert whole.seconds.low < 37.6 < whole.seconds.high


def test_passes_are_halved_until_they_fit_as_the_stages_do():
    small = H200._replace(memory=20 * 10**9)
    assert estimate_embedding("a", ROWS, LLAMA, H200).memory > small.memory
    assert estimate_embedding("a", ROWS, LLAMA, small).memory <= small.memory
    many = FinetuningSettings(micro_batch_size=64)
    tight = H200._replace(memory=40 * 10**9)
    assert estimate_training("a", ROWS, many, LLAMA, tight).memory <= tight.memory


def test_without_a_base_model_only_purification_is_estimated():
    workload = Workload(ROWS, ROWS, ROWS)
    names = [s.asset for s in estimate_task(Settings(), workload, PUBLISHED["minilm"], None, H200)]
    assert names[-1] == "sample_weights"


def test_the_judge_is_asked_what_the_evaluation_asks():
    from sot_pipeline.evaluation.run import KINDS

    assert estimate.JUDGED == KINDS
    settings = Settings.model_validate({"evaluation": {"judge": "openai"}})
    prompts = ROWS._replace(num_rows=1000)
    workload = Workload(ROWS, ROWS, ROWS, eval_harmful=prompts, eval_task=prompts)
    cost = judge_cost(workload, settings)
    assert cost.num_requests == 3000  # harm and refusal of one set, help of the other
    assert judge_cost(workload, Settings()).num_requests == 0


def test_models_judged_are_base_adapter_and_every_further_training():
    compared = {"methods": ["sft", "sot"], "seeds": [0, 1, 2]}
    settings = Settings.model_validate({"comparison": compared})
    assert num_models_judged(settings) == 2 + 3 + 2
    assert num_models_judged(Settings()) == 2


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        ({}, 4000),
        ({"keep_fraction": None, "keep_count": 3000}, 3000),
        ({"keep_fraction": None, "keep_count": 9000}, 5000),
        ({"method": "calibrated", "keep_fraction": None}, 5000),
    ],
)
def test_as_many_rows_are_trained_on_as_the_cut_keeps(selection, kept):
    assert num_kept(Settings.model_validate({"selection": selection}), 5000) == kept


# Devices and lengths


def test_this_machine_is_measured_and_an_unknown_device_names_the_nearest():
    cpu: Device = this_cpu()
    assert cpu.flops > 1e8
    assert cpu.memory > 1e8
    assert not cpu.is_gpu
    with pytest.raises(InputError, match="did you mean 'h200'"):
        hardware.device("h20")


def test_rows_are_counted_in_files_by_characters_or_by_the_models_tokenizer(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [metamathqa_row(i) for i in range(10)]
    write_jsonl(path, [{"prompt": r["query"], "response": r["response"]} for r in rows])
    rough = counted({"rows.jsonl": path})
    assert rough.num_rows == 10
    assert rough.prompt == len("What is 1 + 1?") / 4 + 20
    exact = counted({"rows.jsonl": path}, model=save_tiny_model(tmp_path / "model"))
    assert exact.num_rows == 10
    assert exact.longest >= exact.mean > rough.answer


def test_several_sets_together_have_their_weighted_mean():
    mixed = together([assumed(3, 10, 0, "a"), assumed(1, 50, 8, "b"), NO_ROWS])
    assert (mixed.num_rows, mixed.prompt, mixed.answer) == (4, 40, 2)
    assert mixed.basis == "a; b"
    assert together([]) == NO_ROWS


def test_a_cut_takes_the_beginning_and_never_the_answer():
    assert TextLengths(1, 3000, 200, 9000, "").cut(2048)[1:4] == (1848, 200, 2048)
    assert TextLengths(1, 10, 3000, 9000, "").cut(2048)[1:4] == (0, 2048, 2048)


def test_constants_are_intervals_of_which_the_first_end_is_the_faster():
    assert model_cost.LOAD_RATE[0] > model_cost.LOAD_RATE[1]
    assert estimate.SWEEP_RATE[0] > estimate.SWEEP_RATE[1]
    for low, high in (model_cost.LAYER_SECONDS, estimate.ROW_SECONDS, estimate.SWEEPS):
        assert low < high
