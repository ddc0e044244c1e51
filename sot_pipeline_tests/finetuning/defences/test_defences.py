"""Each defence in the one loop: what it changes, what it leaves, and that it goes on after a stop."""

import numpy as np
import pytest
import torch

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.defences import spag as spag_module
from sot_pipeline.finetuning.defences.adapted import adapted_matrices, weight_gradients
from sot_pipeline.finetuning.defences.defence import Defence
from sot_pipeline.finetuning.defences.refusalguard import refusal_directions
from sot_pipeline.finetuning.defences.registry import DEFENCES, make_defence
from sot_pipeline.finetuning.defences.safegrad import SafeGrad, without_conflict
from sot_pipeline.finetuning.defences.sbr import Sbr
from sot_pipeline.finetuning.defences.spag import Spag
from sot_pipeline.finetuning.defences.spf import Spf
from sot_pipeline.finetuning.defences.subspace import (
    components,
    leading_subspace,
    without_conflicts,
)
from sot_pipeline.finetuning.lora import add_lora
from sot_pipeline.finetuning.loss import mean_loss
from sot_pipeline.finetuning.rows import tokenize
from sot_pipeline.finetuning.safety import SafetyTexts, tokenize_safety
from sot_pipeline.language_model import load_language_model
from sot_pipeline_tests.finetuning.test_recovery import killed_at
from sot_pipeline_tests.finetuning.test_train import ROWS, conversations, tune
from sot_pipeline_tests.tiny_models import save_tiny_model

SAFE = conversations(5, seed=1)
TEXTS = SafetyTexts(SAFE, [row[:1] for row in ROWS])
# the task teaches other answers to the prompts of the demonstrations: it works against them
AGAINST = [
    [row[0], {"role": "assistant", "content": "seven eight nine ten"}] for row in SAFE
] + ROWS[:3]
NAMES = [name for name in DEFENCES if name != "none"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("base"))


def with_adapter(base, seed=0):
    """A model whose adapter is not at its beginning, and its demonstrations."""
    lm = load_language_model(base)
    model = add_lora(lm.model, rank=4, lora_alpha=8, target_modules=("q_proj", "v_proj"), seed=seed)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model, tokenize_safety(lm.tokenizer, TEXTS, 512)


def loss_on(base, adapter: dict[str, torch.Tensor], rows) -> float:
    lm = load_language_model(base)
    model = add_lora(lm.model, rank=4, lora_alpha=8, target_modules=("q_proj", "v_proj"), seed=0)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in adapter.items():
            own[name.replace(".weight", ".default.weight")].copy_(value)
    data = tokenize(lm.tokenizer, rows, np.ones(len(rows)), 512)
    with torch.no_grad():
        return float(mean_loss(model, data, range(len(rows))))


def test_the_gradient_of_a_matrix_is_what_its_adapter_sees(base):
    """d/dB = scaling * G A^T and d/dA = scaling * B^T G, for the gradient G of the whole matrix."""
    model, safety = with_adapter(base)
    matrices = adapted_matrices(model)
    assert len(matrices) == 4  # query and value of two layers
    loss, gradients = weight_gradients(model, matrices, safety.demonstrations, size=2)
    expected = mean_loss(model, safety.demonstrations, range(5))
    expected.backward()
    for m in matrices:
        g = gradients[m.name]
        torch.testing.assert_close(m.b.grad, m.scaling * g @ m.a.detach().T, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(m.a.grad, m.scaling * m.b.detach().T @ g, atol=1e-5, rtol=1e-4)
        assert not m.weight.requires_grad
    assert loss == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"project": "update"},
        {"project": "gradient"},
        {"space": "parameter"},
    ],
)
def test_spf_forgets_less_of_the_demonstrations_than_plain_training(base, tmp_path, options):
    train = {"rows": AGAINST, "num_steps": 12, "safety": TEXTS}
    plain, _ = tune(base, tmp_path, **train)
    defended, result = tune(
        base, tmp_path, defence=Spf(refresh=1, num_samples=5, **options), **train
    )
    assert loss_on(base, defended, SAFE) < loss_on(base, plain, SAFE)
    assert max(values["spf_conflicts"] for values in result.trace) > 0


def test_a_projected_update_moves_no_matrix_against_its_directions(base, tmp_path, monkeypatch):
    seen = []

    class Watched(Spf):
        def on_gradients(self, step):
            self.held = {m.name: (m.a.detach().clone(), m.b.detach().clone()) for m in
                         self._matrices}  # fmt: skip
            return super().on_gradients(step)

        def on_update(self, step):
            told = super().on_update(step)
            for m in self._matrices:
                a, b = self.held[m.name]
                moved = (b - m.b.detach()) @ a + b @ (a - m.a.detach())
                seen.append(components(m.scaling * moved, self._spaces[m.name]).min().item())
            return told

    tune(
        base,
        tmp_path,
        rows=AGAINST,
        safety=TEXTS,
        defence=Watched(refresh=1, num_samples=1, project="update"),
    )
    assert len(seen) == 4 * 4
    assert min(seen) >= -1e-6


def test_two_sided_leaves_a_conflicting_factor_nothing_in_the_subspace(base, tmp_path):
    inside = {True: [], False: []}

    class Watched(Spf):
        def on_update(self, step):
            told = super().on_update(step)
            for m, before in zip(self._matrices, self._before, strict=True):
                for part, was, now in zip("ab", before, (m.a, m.b), strict=True):
                    space = self._spaces[f"{m.name}.{part}"]
                    moved = was - now.detach()
                    size = (space.u.T @ moved @ space.v).norm().item()
                    agrees = (components(moved, space) * space.s).sum().item() > 1e-6
                    inside[agrees].append(size if space.s.any() else 0.0)
            return told

    tune(base, tmp_path, rows=AGAINST, safety=TEXTS,
         defence=Watched(space="parameter", mode="two_sided", refresh=1, num_samples=1,
                         project="update"))  # fmt: skip
    assert max(inside[False]) < 1e-6 < 1e-3 < max(inside[True])


def test_spf_with_one_direction_of_one_block_is_safegrad():
    safety = torch.outer(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 1.0, 2.0]))
    space = leading_subspace(safety, 1)
    for seed in range(5):
        task = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
        ours, _ = without_conflicts(task, space)
        theirs = without_conflict(task.flatten(), safety.flatten()).view(2, 3)
        torch.testing.assert_close(ours, theirs)


def test_safegrad_leaves_no_component_against_alignment():
    task, aligned = torch.tensor([1.0, -3.0]), torch.tensor([1.0, 1.0])
    assert without_conflict(task, aligned).tolist() == [2.0, -2.0]
    assert torch.equal(without_conflict(-task, aligned), -task)
    assert torch.equal(without_conflict(task, torch.zeros(2)), task)


def test_safegrad_by_divergence_begins_as_plain_training(base, tmp_path):
    """At the aligned model itself the divergence from it has no gradient."""
    plain, _ = tune(base, tmp_path, num_steps=1)
    first, result = tune(base, tmp_path, num_steps=1, defence=SafeGrad(), safety=TEXTS)
    assert result.trace[0]["safegrad_loss"] == pytest.approx(0, abs=1e-6)
    for name in plain:
        torch.testing.assert_close(plain[name], first[name], atol=1e-3, rtol=0)


def test_sbr_holds_the_hidden_states_of_dangerous_prompts(base, tmp_path):
    train = {"rows": AGAINST, "num_steps": 12, "safety": TEXTS}
    _, free = tune(base, tmp_path, defence=Sbr(strength=0.0), **train)
    _, held = tune(base, tmp_path, defence=Sbr(strength=50.0), **train)
    assert free.trace[0]["sbr_drift"] == held.trace[0]["sbr_drift"] == 0
    assert 0 < held.trace[-1]["sbr_drift"] < 0.5 * free.trace[-1]["sbr_drift"]


def test_spag_does_nothing_while_safe_answers_are_likely_enough(base, tmp_path):
    plain, _ = tune(base, tmp_path, rows=AGAINST)
    free, result = tune(base, tmp_path, rows=AGAINST, defence=Spag(threshold=1e9), safety=TEXTS)
    assert all(torch.equal(plain[name], free[name]) for name in plain)
    assert all(values["spag_step"] == 0 for values in result.trace)


def test_spag_steps_as_far_as_a_linear_loss_would_need(base, tmp_path, monkeypatch):
    lengths = []
    descend = spag_module.Spag._descend

    def watched(self, loss, excess):
        gradients = torch.autograd.grad(loss, list(self.run.parameters.values()), retain_graph=True)
        lengths.append(excess / float(sum((g**2).sum() for g in gradients)))
        return descend(self, loss, excess)

    monkeypatch.setattr(spag_module.Spag, "_descend", watched)
    _, result = tune(base, tmp_path, safety=TEXTS, defence=Spag(max_step=1e9))
    assert [v["spag_step"] for v in result.trace] == pytest.approx(lengths, rel=1e-4)
    _, short = tune(base, tmp_path, safety=TEXTS, defence=Spag(max_step=1e-3))
    assert {v["spag_step"] for v in short.trace} == {1e-3}


def test_spag_lowers_the_loss_of_safe_answers(base, tmp_path):
    train = {"rows": AGAINST, "num_steps": 12, "safety": TEXTS}
    plain, _ = tune(base, tmp_path, **train)
    defended, _ = tune(base, tmp_path, defence=Spag(max_step=0.1), **train)
    assert loss_on(base, defended, SAFE) < loss_on(base, plain, SAFE)


def test_refusal_directions_are_orthonormal_and_hold_the_difference_of_the_means():
    generator = torch.Generator().manual_seed(0)
    harmful = torch.randn(9, 6, generator=generator) + 2
    harmless = torch.randn(8, 6, generator=generator)
    u = refusal_directions(harmful, harmless, 3)
    torch.testing.assert_close(u.T @ u, torch.eye(3))
    difference = harmful.mean(dim=0) - harmless.mean(dim=0)
    torch.testing.assert_close(u @ (u.T @ difference), difference)


def test_refusalguard_holds_what_tells_harmful_from_harmless(base, tmp_path):
    train = {"rows": AGAINST, "num_steps": 12, "safety": TEXTS}
    _, free = tune(base, tmp_path, defence=make_defence("refusalguard_reimpl", {"strength": 0.0}),
                   **train)  # fmt: skip
    _, held = tune(base, tmp_path, defence=make_defence("refusalguard_reimpl"), **train)
    drifts = [[v["refusalguard_drift"] for v in r.trace[-4:]] for r in (held, free)]
    assert max(drifts[0]) < 0.5 * min(drifts[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_defended_training_goes_on_from_a_checkpoint_exactly(base, tmp_path, name):
    options = {"rows": AGAINST, "num_steps": 7, "batch_size": 3, "safety": TEXTS}
    choice = {"refresh": 3} if name == "spf" else {}
    whole, result = tune(base, tmp_path, defence=make_defence(name, choice), **options)
    options |= {"checkpoint_dir": tmp_path / "checkpoints", "checkpoint_every": 2}
    killed_at(base, tmp_path, 5, defence=make_defence(name, choice), **options)
    resumed, second = tune(base, tmp_path, defence=make_defence(name, choice), **options)
    assert second.num_resumed == 4
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    told = [{k: v for k, v in values.items() if "seconds" not in k} for values in result.trace]
    again = [{k: v for k, v in values.items() if "seconds" not in k} for values in second.trace]
    assert told == again


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_another_defence_is_not_used(base, tmp_path, name):
    options = {"num_steps": 4, "checkpoint_dir": tmp_path / "c", "checkpoint_every": 2,
               "safety": TEXTS}  # fmt: skip
    tune(base, tmp_path, **options)
    _, result = tune(base, tmp_path, defence=make_defence(name), **options)
    assert result.num_resumed == 0


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_defences_do_not_care_how_rows_lie_in_memory(base, tmp_path, name, packing):
    options = {"rows": AGAINST, "safety": TEXTS, "learning_rate": 1e-3}
    whole, _ = tune(base, tmp_path, defence=make_defence(name), **options)
    parts, _ = tune(base, tmp_path, defence=make_defence(name), micro_batch_size=3,
                    packing=packing, **options)  # fmt: skip
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key], atol=2e-4, rtol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_a_defence_without_anything_to_learn_from_says_so(base, tmp_path, name):
    with pytest.raises(InputError, match=r"demonstrations|prompts of both sorts"):
        tune(base, tmp_path, defence=make_defence(name))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sfp", {}, "did you mean 'spf'"),
        ("nothing like it", {}, "known: none, spf, safegrad"),
        ("spf", {"rnak": 3}, "spf has no option 'rnak'; did you mean 'rank'"),
        ("spf", {"rank": 2.5}, "rank is 2.5; expected a int"),
        ("spf", {"rank": True}, "rank is True"),
        ("spf", {"rank": 0}, "rank >= 1"),
        ("spf", {"mode": "two_sided"}, "needs space 'parameter'"),
        ("spf", {"space": "all"}, "space 'all'"),
        ("spf", {"project": "both"}, "project 'both'"),
        ("safegrad", {"alignment": "ce"}, "expected 'kl' or 'nll'"),
        ("spag", {"max_step": 0.0}, "max_step > 0"),
        ("safegrad", {"batch_size": 0}, "batch_size >= 1"),
        ("sbr", {"strength": -1}, "strength >= 0"),
        ("refusalguard_reimpl", {"num_prompts": 0}, "num_prompts and batch_size >= 1"),
        ("refusalguard_reimpl", {"first_layer": 1.0}, "first_layer < 1"),
        ("none", {"rank": 3}, "none has no option 'rank'"),
    ],
)
def test_what_no_defence_is_called_is_refused_with_a_reason(name, options, message):
    with pytest.raises(InputError, match=message):
        make_defence(name, options)


def test_safety_gradients_in_parts_are_the_whole_gradient(base):
    model, safety = with_adapter(base)
    matrices = adapted_matrices(model)
    whole = weight_gradients(model, matrices, safety.demonstrations, size=5)
    parts = weight_gradients(model, matrices, safety.demonstrations, size=2)
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    for name, gradient in whole[1].items():
        torch.testing.assert_close(parts[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_quantised_weights_are_refused_with_a_way_out(base):
    model, safety = with_adapter(base)
    quantised = [
        matrix._replace(weight=torch.zeros(2, 2, dtype=torch.int8))
        for matrix in adapted_matrices(model)
    ]
    with pytest.raises(InputError, match="space to 'parameter'"):
        weight_gradients(model, quantised, safety.demonstrations, size=5)


def test_other_harmless_prompts_are_another_training(base, tmp_path):
    options = {"num_steps": 4, "checkpoint_dir": tmp_path / "c", "checkpoint_every": 2}
    guard = make_defence("refusalguard_reimpl")
    tune(base, tmp_path, defence=guard, safety=TEXTS, **options)
    _, same = tune(base, tmp_path, defence=guard, safety=TEXTS, **options)
    others = TEXTS._replace(harmless_prompts=[row[:1] for row in reversed(ROWS)])
    _, other = tune(base, tmp_path, defence=guard, safety=others, **options)
    assert (same.num_resumed, other.num_resumed) == (2, 0)


def test_whole_numbers_do_for_fractions():
    assert make_defence("sbr", {"strength": 3}) == Sbr(strength=3)
    assert type(make_defence("none")) is Defence
