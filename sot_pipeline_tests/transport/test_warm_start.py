"""A solve that starts from an earlier one ends where a fresh one ends."""

import numpy as np
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.transport.cost import cosine_cost, pooled_mean
from sot_pipeline.transport.fit import PushPullFit, carried_over
from sot_pipeline.transport.push_pull import learn_weights
from sot_pipeline_tests.transport.problems import clusters

DATA = clusters(num_custom=300, num_harmful=30, num_reference=80)
OTHER = clusters(num_custom=300, num_harmful=30, num_reference=80, seed=9)
CENTER = pooled_mean(DATA.safe)
NAT = 1e-4  # log-weights nearer than this are a tie


def solve(custom, safe, harmful, init: PushPullFit | None = None) -> PushPullFit:
    pull, push = (cosine_cost(custom, rows, center=CENTER) for rows in (safe, harmful))
    return learn_weights(pull, push, init=init)


def assert_same(warm: PushPullFit, cold: PushPullFit, keep: float = 0.8) -> None:
    assert warm.converged
    assert np.abs(warm.weights - cold.weights).sum() / 2 < 1e-4
    kept = np.argsort(-cold.log_weights)[: int(keep * len(cold.log_weights))]
    order = kept[np.argsort(-warm.log_weights[kept], kind="stable")]
    # in the order of the warm solve the cold log-weights fall, ties apart
    assert (np.diff(cold.log_weights[order]) < NAT).all()


FIRST = solve(DATA.custom, DATA.safe, DATA.harmful)


@pytest.mark.parametrize(
    ("safe", "harmful"),
    [
        pytest.param(DATA.safe, np.r_[OTHER.harmful[:1], DATA.harmful[1:]], id="harmful replaced"),
        pytest.param(np.r_[DATA.safe, OTHER.safe[:3]], DATA.harmful, id="safe rows added"),
        pytest.param(DATA.safe[4:], DATA.harmful[:-2], id="rows of both gone"),
        pytest.param(OTHER.safe, OTHER.harmful, id="other references altogether"),
    ],
)
def test_changed_references(safe, harmful):
    cold = solve(DATA.custom, safe, harmful)
    warm = solve(DATA.custom, safe, harmful, init=FIRST)
    assert_same(warm, cold)
    assert warm.num_steps <= cold.num_steps


def test_changed_custom_rows():
    order = np.random.default_rng(0).permutation(290)  # ten rows gone, the rest shuffled
    custom = np.concatenate([OTHER.custom[:20], DATA.custom[order]])
    rows = np.concatenate([np.full(20, -1), order])
    warm = solve(custom, DATA.safe, DATA.harmful, init=carried_over(FIRST, rows))
    assert_same(warm, solve(custom, DATA.safe, DATA.harmful))


def test_a_starting_point_for_the_same_rows_is_the_fit_itself():
    assert carried_over(FIRST, np.arange(300)) is FIRST


def test_a_carried_over_row_keeps_its_share_and_a_new_one_gets_the_average():
    start = carried_over(FIRST, np.array([5, -1, 7]))
    assert np.exp(start.log_weights).sum() == pytest.approx(1)
    known = FIRST.solved_at[[5, 7]]
    assert start.log_weights[2] - start.log_weights[0] == pytest.approx(known[1] - known[0])
    assert start.log_weights[1] == pytest.approx(start.log_weights[[0, 2]].mean())


def test_without_a_known_row_there_is_nothing_to_start_from():
    with pytest.raises(InputError, match="none of the rows"):
        carried_over(FIRST, np.full(4, -1))
