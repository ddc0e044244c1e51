"""LARF: the score, and the search for the layer."""

import numpy as np
import pytest
import torch

from sot_pipeline.errors import InputError
from sot_pipeline.evaluation.generate import generate_answers
from sot_pipeline.language_model import load_language_model
from sot_pipeline.selectors.larf import larf, refusals_by_layer, sensitive_layer
from sot_pipeline_tests.tiny_models import save_tiny_model

PROMPTS = [
    [{"role": "user", "content": f"what is {a} plus {b}"}]
    for a in ("one", "two", "three", "four")
    for b in ("five", "six", "seven")
]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("base"), num_hidden_layers=3)
    return load_language_model(folder, device="cpu")


def test_the_score_is_the_mean_cosine_to_safe_less_that_to_harmful_rows():
    custom = np.array([[1.0, 0.0], [0.0, 2.0]])
    safe, harmful = np.array([[3.0, 0.0], [0.6, 0.8]]), np.array([[0.0, 5.0]])
    np.testing.assert_allclose(larf(custom, safe, harmful), [0.8, 0.4 - 1.0])


def refuses_like(lm, scaled_block, scale):
    """A rule that calls the changed answers refusals, for one scaled block."""
    usual = set(generate_answers(lm, PROMPTS, max_new_tokens=6, batch_size=4))
    block = lm.model.base_model.layers[scaled_block]
    kept = {name: p.detach().clone() for name, p in block.named_parameters()}
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.mul_(scale)
        changed = set(generate_answers(lm, PROMPTS, max_new_tokens=6, batch_size=4))
        for name, parameter in block.named_parameters():
            parameter.copy_(kept[name])
    assert changed - usual
    return (changed - usual).__contains__


@pytest.mark.parametrize("block", [0, 1, 2])
def test_the_layer_whose_scaling_changes_the_refusals_is_found(lm, block):
    is_refusal = refuses_like(lm, block, 1.5)
    layer = sensitive_layer(lm, PROMPTS, is_refusal, scale=1.5, max_new_tokens=6, batch_size=4)
    assert layer == block + 1


def test_the_weights_are_restored_exactly(lm):
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    refusals_by_layer(lm, PROMPTS, bool, scale=1.1, max_new_tokens=2)
    assert all(torch.equal(value, before[name]) for name, value in lm.model.state_dict().items())


def test_the_weights_are_restored_when_judging_fails(lm):
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    calls = []

    def fails(answer):
        calls.append(answer)
        if len(calls) > len(PROMPTS):
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        refusals_by_layer(lm, PROMPTS, fails, max_new_tokens=2)
    assert all(torch.equal(value, before[name]) for name, value in lm.model.state_dict().items())


def test_the_first_count_is_that_of_the_model_as_it_is(lm):
    usual = generate_answers(lm, PROMPTS, max_new_tokens=6, batch_size=4)
    counts = refusals_by_layer(
        lm, PROMPTS, lambda answer: answer == usual[0], scale=1.5, max_new_tokens=6
    )
    assert counts.shape == (4,)
    assert counts[0] == usual.count(usual[0])


def test_progress_counts_answers(lm):
    calls = []
    refusals_by_layer(
        lm, PROMPTS, bool, max_new_tokens=2, batch_size=5, progress=lambda *c: calls.append(c)
    )
    assert calls == sorted(calls)
    assert calls[-1] == (48, 48)


def test_a_model_that_never_changes_its_mind_has_no_sensitive_layer(lm):
    with pytest.raises(InputError, match="refuses 0 of 12 prompts whichever layer"):
        sensitive_layer(lm, PROMPTS, lambda answer: False, max_new_tokens=2)


def test_without_prompts_there_is_nothing_to_watch(lm):
    with pytest.raises(InputError, match="no prompts"):
        sensitive_layer(lm, [], bool)
