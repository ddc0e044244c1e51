"""What the selectors of a comparison are said to cost."""

import pytest

from sot_pipeline.defs.estimate import estimate_answers, estimate_task, estimate_training
from sot_pipeline.defs.hardware import GPUS
from sot_pipeline.defs.methods import RIVALS
from sot_pipeline.defs.model_shape import PUBLISHED
from sot_pipeline.defs.rival_cost import (
    NOT_COUNTED,
    SAFT_ROWS,
    SEAL,
    TOSS,
    estimate_with_rivals,
    grading_cost,
)
from sot_pipeline.defs.rivals import known_options
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.workload import TextLengths, Workload

LLAMA, H200 = PUBLISHED["meta-llama/Llama-3.1-8B-Instruct"], GPUS["h200"]
ROWS = TextLengths(5000, 250, 200, 2048, "given")
WORK = Workload(ROWS, ROWS._replace(num_rows=50), ROWS, eval_task=ROWS)


def compared(*methods: str, **blocks) -> Settings:
    return Settings.model_validate({"comparison": {"methods": methods}, **blocks})


def stages(settings: Settings, work: Workload = WORK) -> dict:
    found = estimate_with_rivals(settings, work, LLAMA, LLAMA, H200)
    return {stage.asset: stage for stage in found}


@pytest.mark.parametrize("method", ["toss", "sot_reweight", "sft"])
def test_methods_that_leave_no_row_out_train_on_all(method):
    settings = compared(method, selection={"keep_fraction": 0.5})
    (found,) = (
        stage for stage in estimate_task(settings, WORK, LLAMA, LLAMA, H200)
        if stage.asset == "comparison"
    )  # fmt: skip
    answers = estimate_answers(WORK, settings, LLAMA, H200)
    trained = estimate_training("x", ROWS, settings.finetuning, LLAMA, H200)
    assert found.seconds.low == pytest.approx(answers.seconds.low + trained.seconds.low)


def test_every_rival_is_estimated_or_said_not_to_be():
    found = stages(compared(*RIVALS))
    assert {f"{rival}_weights" for rival in RIVALS if rival not in NOT_COUNTED} <= found.keys()
    for rival in NOT_COUNTED:
        assert rival in found["comparison"].basis
    for stage in found.values():
        assert 0 <= stage.seconds.low <= stage.seconds.high


def test_rivals_that_nobody_asks_for_cost_nothing():
    assert not any(asset.endswith("_weights") for asset in stages(compared("sft"))
                   if asset != "sample_weights")  # fmt: skip


def test_seal_learns_from_both_sets_in_every_epoch():
    settings = compared("seal", rivals={"options": {"seal": {"batch_size": 64, "num_epochs": 2}}})
    twice = ROWS._replace(num_rows=10_000)
    learning = settings.finetuning.model_copy(
        update={"num_epochs": 2, "batch_size": 64, "micro_batch_size": SEAL["micro_batch_size"]}
    )
    alone = estimate_training("x", twice, learning, LLAMA, H200)
    assert stages(settings)["seal_weights"].seconds == alone.seconds


def test_a_pass_of_seal_that_does_not_fit_is_said_not_to_fit():
    found = stages(compared("seal"))["seal_weights"]
    (small,) = (
        stage for stage in estimate_with_rivals(compared("seal"), WORK, LLAMA, LLAMA, GPUS["l4"])
        if stage.asset == "seal_weights"
    )  # fmt: skip
    assert small.memory == found.memory > GPUS["l4"].memory


def test_a_larger_harmful_reference_costs_toss_and_larf_more_and_saft_the_same():
    larger = WORK._replace(harmful=ROWS._replace(num_rows=50_000))
    before, after = (stages(compared("toss", "larf", "saft"), work) for work in (WORK, larger))
    for rival in ("toss_weights", "larf_weights"):
        assert after[rival].seconds.low > 2 * before[rival].seconds.low
    assert after["saft_weights"].seconds == before["saft_weights"].seconds


def test_alpagasus_asks_the_judge_once_a_row():
    settings = compared("alpagasus", evaluation={"judge": "openai"})
    assert grading_cost(WORK, settings).num_requests == 5000
    assert grading_cost(WORK, settings).input_tokens > ROWS.num_tokens
    assert grading_cost(WORK, compared("alpagasus")).num_requests == 0
    assert grading_cost(WORK, compared("sft", evaluation={"judge": "openai"})).num_requests == 0


def test_references_of_task_prompts_are_read_once_more():
    without = WORK._replace(eval_task=ROWS._replace(prompt=450, answer=0))
    settings = Settings()
    asked = WORK._replace(eval_task=ROWS._replace(prompt=450))
    seconds = [estimate_answers(work, settings, LLAMA, H200).seconds for work in (without, asked)]
    assert seconds[1].high > seconds[0].high


def test_what_recipes_default_to_is_what_is_estimated():
    from sot_pipeline.defs.assets.rivals import NUM_VALIDATION_ROWS

    assert {name: known_options("seal")[name].default for name in SEAL} == SEAL
    assert {name: known_options("toss")[name].default for name in TOSS} == TOSS
    assert SAFT_ROWS == NUM_VALIDATION_ROWS // 2
