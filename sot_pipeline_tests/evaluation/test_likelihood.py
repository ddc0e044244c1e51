"""The loss of reference answers."""

import pytest
import torch

from sot_pipeline.evaluation import likelihood as module
from sot_pipeline.evaluation.judge import KeywordJudge
from sot_pipeline.evaluation.likelihood import reference_losses
from sot_pipeline.evaluation.run import PromptSet, evaluate_model
from sot_pipeline.language_model import load_language_model
from sot_pipeline.rendering import render_with_answer_mask
from sot_pipeline_tests.tiny_models import save_tiny_model

PROMPTS = [[{"role": "user", "content": text}] for text in ("two plus two", "what is ten", "sum")]
REFERENCES = ["four", "ten is five plus five", "two three"]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return load_language_model(
        save_tiny_model(tmp_path_factory.mktemp("model") / "m"), device="cpu"
    )


def by_hand(lm, prompt, reference) -> float:
    turns = [*prompt, {"role": "assistant", "content": reference}]
    row = render_with_answer_mask(lm.tokenizer, turns)
    logits = lm.model(torch.tensor([row.token_ids])).logits[0].log_softmax(-1)
    nll = [
        -logits[place - 1, token].item()
        for place, (token, scored) in enumerate(zip(row.token_ids, row.is_answer, strict=True))
        if scored
    ]
    return sum(nll) / len(nll)


def test_agrees_with_the_loss_token_by_token_whatever_is_batched(lm):
    expected = [by_hand(lm, *pair) for pair in zip(PROMPTS, REFERENCES, strict=True)]
    for batch_size in (1, 2, 3):
        found = reference_losses(lm, PROMPTS, REFERENCES, batch_size=batch_size)
        assert found == pytest.approx(expected, abs=1e-5)


def recorded(lm, monkeypatch) -> list:
    """The model's outputs, as they are asked for."""
    outputs, forward = [], type(lm.model).forward

    def spy(self, *args, logits_to_keep=0, **kwargs):
        outputs.append(forward(self, *args, logits_to_keep=logits_to_keep, **kwargs))
        return outputs[-1]

    monkeypatch.setattr(type(lm.model), "forward", spy)
    return outputs


def test_logits_are_made_of_answers_alone(lm, monkeypatch):
    outputs = recorded(lm, monkeypatch)
    long = [{"role": "user", "content": "two plus " * 40}]
    (found,) = reference_losses(lm, [long], ["four"], batch_size=1)
    turns = [*long, {"role": "assistant", "content": "four"}]
    answer = sum(render_with_answer_mask(lm.tokenizer, turns).is_answer)
    assert [output.logits.shape[1] for output in outputs] == [answer]
    assert found == pytest.approx(by_hand(lm, long, "four"), abs=1e-5)


def test_a_model_that_makes_all_logits_gives_the_same(lm, monkeypatch):
    expected = reference_losses(lm, PROMPTS, REFERENCES, batch_size=3)
    forward = type(lm.model).forward
    monkeypatch.setattr(
        type(lm.model), "forward",
        lambda self, input_ids, attention_mask, use_cache: forward(
            self, input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache
        ),
    )  # fmt: skip
    assert reference_losses(lm, PROMPTS, REFERENCES, batch_size=3) == pytest.approx(expected)


def test_long_prompts_share_a_batch_with_fewer(lm, monkeypatch):
    outputs = recorded(lm, monkeypatch)
    monkeypatch.setattr(module, "_TOKENS", 64)
    expected = [by_hand(lm, *pair) for pair in zip(PROMPTS, REFERENCES, strict=True)]
    outputs.clear()
    found = reference_losses(lm, PROMPTS * 4, REFERENCES * 4, batch_size=12)
    assert found == pytest.approx(expected * 4, abs=1e-5)
    assert 1 < len(outputs) < 12


@pytest.mark.parametrize("size", [1, 2])
def test_long_answers_are_summed_slice_by_slice(lm, monkeypatch, size):
    expected = reference_losses(lm, PROMPTS, REFERENCES, batch_size=3)
    monkeypatch.setattr(module, "_FLOAT_TOKENS", size)
    found = reference_losses(lm, PROMPTS, REFERENCES, batch_size=3)
    assert found == pytest.approx(expected, abs=1e-5)


def test_running_out_of_memory_halves_the_batch(lm, monkeypatch):
    expected, losses = reference_losses(lm, PROMPTS, REFERENCES, batch_size=3), module._losses

    def small_memory(lm, rows):
        if len(rows) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return losses(lm, rows)

    monkeypatch.setattr(module, "_losses", small_memory)
    found = reference_losses(lm, PROMPTS, REFERENCES, batch_size=3)
    assert found == pytest.approx(expected, abs=1e-5)


def test_earlier_answers_are_read_and_not_scored(lm):
    earlier = [*PROMPTS[0], {"role": "assistant", "content": "four"}, *PROMPTS[1]]
    turns = [*earlier[:1], {**earlier[1], "train": False}, *earlier[2:]]
    (found,) = reference_losses(lm, [earlier], ["ten"], batch_size=1)
    assert found == pytest.approx(by_hand(lm, turns, "ten"), abs=1e-5)


def test_what_does_not_fit_the_context_is_missing(lm):
    too_long = "two " * lm.model.config.max_position_embeddings
    found = reference_losses(lm, PROMPTS[:2], ["four", too_long], batch_size=2)
    assert found[0] is not None
    assert found[1] is None


@pytest.mark.parametrize(("references", "reported"), [(REFERENCES, True), ([None] * 3, False)])
def test_an_evaluation_reports_it_where_every_prompt_has_a_reference(lm, references, reported):
    scores, _ = evaluate_model(
        lm, {"task": PromptSet(["a", "b", "c"], PROMPTS, references)}, KeywordJudge(),
        accuracy_mode="exact", max_new_tokens=2, batch_size=3, num_resamples=100,
    )  # fmt: skip
    assert ("task_loss" in scores["score"].to_list()) == reported
