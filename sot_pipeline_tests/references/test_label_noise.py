"""Flip rates: known flips are found and counted, and copies do not vouch for each other."""

import numpy as np
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.references.cleaning import clean
from sot_pipeline.references.duplicates import copy_groups
from sot_pipeline.references.label_noise import FEWEST_ROWS, flip_rates

NUM_ROWS, DIMENSIONS = 200, 20


def two_kinds(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds that a plane tells apart."""
    rng = np.random.default_rng(seed)
    clouds = rng.normal(size=(2, NUM_ROWS, DIMENSIONS))
    clouds[0, :, 0] += 6
    clouds[1, :, 0] -= 6
    return clouds[0], clouds[1]


def swapped(num_safe: int, num_harmful: int) -> tuple[np.ndarray, np.ndarray]:
    """References whose first rows are of the other kind; these rows are nowhere else."""
    safe, harmful = two_kinds()
    more_safe, more_harmful = two_kinds(seed=1)
    safe[:num_safe] = more_harmful[:num_safe]
    harmful[:num_harmful] = more_safe[:num_harmful]
    return safe, harmful


@pytest.mark.parametrize(("num_safe", "num_harmful"), [(0, 0), (20, 0), (0, 40), (30, 30)])
def test_flips_are_found_and_counted_and_no_other_row_is_blamed(num_safe, num_harmful):
    safe, harmful = flip_rates(*swapped(num_safe, num_harmful))
    for found, num_flipped in ((safe, num_safe), (harmful, num_harmful)):
        assert set(found.suspicious) <= set(range(num_flipped))
        assert len(found.suspicious) >= 0.6 * num_flipped  # the rate is on the low side
        assert found.low <= num_flipped / NUM_ROWS <= found.high


def test_the_most_suspicious_row_comes_first():
    safe, _ = flip_rates(*swapped(20, 0))
    own = safe.probability[safe.suspicious]
    assert (np.diff(own) >= 0).all()
    assert (own < 0.5).all()


def test_the_sides_change_places_with_the_arguments():
    safe, harmful = swapped(10, 30)
    forth, back = flip_rates(safe, harmful), flip_rates(harmful, safe)
    for found, exchanged in zip(forth, back[::-1], strict=True):
        # the folds are others, so the numbers are not exactly the same
        assert found.rate == pytest.approx(exchanged.rate, abs=0.02)
        np.testing.assert_allclose(found.probability, exchanged.probability, atol=0.1)


def test_lengths_of_vectors_do_not_matter():
    safe, harmful = swapped(10, 0)
    scaled = safe * np.random.default_rng(0).uniform(0.1, 10, size=(NUM_ROWS, 1))
    np.testing.assert_allclose(
        flip_rates(safe, harmful)[0].probability,
        flip_rates(scaled, harmful)[0].probability,
        atol=1e-6,
    )


def test_copies_of_a_flipped_row_do_not_vouch_for_it():
    # Every dimension counts alike, so a classifier that saw the copies knows them by heart.
    rng = np.random.default_rng(0)
    safe, harmful = rng.normal(size=(2, 100, 400))
    safe[:, :5] += 2
    harmful[:, :5] -= 2
    flipped = rng.normal(size=400)
    flipped[:5] -= 2
    safe[:30] = flipped
    alone = flip_rates(safe, harmful)[0]
    groups = copy_groups(np.concatenate([safe, harmful]))
    together = flip_rates(safe, harmful, groups=groups)[0]
    assert together.probability[0] < 0.5 < alone.probability[0]


def test_identical_vectors_on_both_sides_tell_nothing_apart():
    same = np.ones((FEWEST_ROWS, 3))
    for found in flip_rates(same, same):
        assert len(found.suspicious) == 0
        assert 0 <= found.low <= found.high <= 1


@pytest.mark.parametrize(
    ("safe", "harmful", "message"),
    [
        (np.ones((1, 3)), np.ones((50, 3)), "the safe reference has 1 rows"),
        (np.ones((50, 3)), np.ones((0, 3)), "the harmful reference has 0 rows"),
        (np.ones((50, 3)), np.ones((50, 4)), "3 dimensions, harmful ones 4"),
        (np.ones((50, 3)), np.full((50, 3), np.nan), "harmful vectors .* not all finite"),
        (np.ones(50), np.ones((50, 1)), "safe vectors have shape"),
    ],
)
def test_what_cannot_be_estimated_says_why(safe, harmful, message):
    with pytest.raises(InputError, match=message):
        flip_rates(safe, harmful)


def test_cleaning_drops_flips_and_all_copies_but_one():
    safe, harmful = swapped(5, 0)
    harmful[100:110] = harmful[100]
    kept = clean(safe, harmful)
    assert kept.flips is not None
    assert set(np.flatnonzero(~kept.safe)) == set(kept.flips[0].suspicious)
    assert 3 <= np.sum(~kept.safe) <= 5
    assert set(np.flatnonzero(~kept.harmful)) == set(range(101, 110))


def test_cleaning_a_clean_pair_keeps_every_row():
    kept = clean(*two_kinds())
    assert kept.safe.all()
    assert kept.harmful.all()


def test_too_few_rows_for_an_estimate_still_lose_their_copies():
    kept = clean(np.ones((3, 2)), np.array([[1.0, -1.0]]))
    assert kept.safe.tolist() == [True, False, False]
    assert kept.flips is None
