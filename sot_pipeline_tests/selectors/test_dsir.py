"""DSIR: against the package of its authors, and each trap of it."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.selectors.dsir import dsir, features, gumbel, plain_text

TARGET = [
    "What is 12 + 30? It's 42, of course.",
    "Sum the numbers: 1, 2 and 3.\nThe sum is six.",
    "Divide ten by two -- that gives five!",
]
CUSTOM = [
    "What is 7 plus 8? The sum is fifteen.",
    "Write a poem about the sea. O sea, o waves...",
    "Über die Straße: naïve café, 你好 🙂 (déjà-vu)",
    "a",
    "Divide 30 by 3.",
    "The quick brown fox; the quick brown fox; the quick brown fox.",
]


@pytest.fixture(scope="module")
def package():
    """Skipped where the development extras are not installed."""
    return pytest.importorskip("data_selection")


@pytest.mark.parametrize("num_buckets", [100, 10_000])
def test_features_are_those_of_the_authors_package(package, num_buckets):
    from data_selection.hashed_ngram_dsir import get_ngram_counts

    for text in [*CUSTOM, *TARGET, "", "  "]:
        expected = get_ngram_counts(text, n=2, num_buckets=num_buckets)
        np.testing.assert_array_equal(features(text, num_buckets), expected)


@pytest.mark.parametrize("num_buckets", [100, 10_000])
def test_log_weights_are_those_of_the_authors_package(package, tmp_path, num_buckets):
    def write(name, texts):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return [str(path)]

    theirs = package.HashedNgramDSIR(
        write("raw", CUSTOM), write("target", TARGET), cache_dir=str(tmp_path / "cache"),
        num_buckets=num_buckets, num_proc=1,
    )  # fmt: skip
    theirs.fit_importance_estimator(num_tokens_to_fit="all")
    theirs.compute_importance_weights()
    expected = np.load(theirs.log_importance_weights_dir / "0.npy")
    ours = dsir(CUSTOM, TARGET, num_buckets=num_buckets, smoothing=0, per_token=False)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_a_feature_is_the_hash_of_a_lower_case_word_or_pair():
    expected = np.zeros(50, dtype=int)
    for ngram in ("it", "'", "s", "6", "it '", "' s", "s 6"):
        expected[int(hashlib.sha256(ngram.encode()).hexdigest(), 16) % 50] += 1
    np.testing.assert_array_equal(features("It's 6", 50), expected)


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 1e-3, 1.0])
def test_rows_like_the_target_weigh_most(per_token, smoothing):
    log_weights = dsir(CUSTOM, TARGET, smoothing=smoothing, per_token=per_token)
    assert log_weights[[0, 4]].min() > log_weights[[1, 2, 5]].max()


def test_short_rows_are_never_dropped():
    log_weights = dsir(["a", "", "?", *CUSTOM], TARGET)
    assert log_weights.shape == (9,)
    assert np.isfinite(log_weights).all()
    assert log_weights[1] == 0.0


def test_without_smoothing_a_word_that_a_small_target_lacks_decides_everything():
    """A log of 1e-8 against that of an observed share; with smoothing it is one word among others."""
    good, with_a_typo = "the sum of one and two", "the sum of one and twoo"
    plain = dsir([good, with_a_typo, *CUSTOM], ["the sum of one and two"] * 3, smoothing=0)
    smooth = dsir([good, with_a_typo, *CUSTOM], ["the sum of one and two"] * 3, smoothing=1)
    assert plain[0] - plain[1] > 2.0
    assert 0 < smooth[0] - smooth[1] < 1.0


def test_a_sum_grows_with_length_and_a_mean_does_not():
    row = "write a poem about the sea ."
    longer = " ".join([row] * 10)
    sums = dsir([row, longer, *CUSTOM], TARGET, per_token=False)
    means = dsir([row, longer, *CUSTOM], TARGET, per_token=True)
    assert sums[1] < 9 * sums[0] < 0
    assert means[1] == pytest.approx(means[0], rel=0.1)


def test_it_is_deterministic_and_leaves_the_global_generator_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = dsir(CUSTOM, TARGET)
    drawn = dsir(CUSTOM, TARGET, sampling_seed=5)
    assert not np.array_equal(drawn, first)
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(dsir(CUSTOM, TARGET), first)
    np.testing.assert_array_equal(dsir(CUSTOM, TARGET, sampling_seed=5), drawn)
    np.random.seed(0)  # noqa: NPY002
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_a_text_is_its_turns_without_roles_template_or_system_turn():
    conversation = [
        {"role": "system", "content": "You are a bank's assistant."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "What is two plus two?"},
        {"role": "assistant", "content": "Four"},
    ]
    assert plain_text(conversation) == "Hello\nHi\nWhat is two plus two?\nFour"


@given(st.lists(st.text(), max_size=6), st.sampled_from([1, 7, 10_000]))
def test_any_text_has_a_finite_weight(texts, num_buckets):
    log_weights = dsir([*texts, "word"], ["word"], num_buckets=num_buckets)
    assert log_weights.shape == (len(texts) + 1,)
    assert np.isfinite(log_weights).all()


def test_half_a_surrogate_pair_is_a_word_like_any():
    assert np.isfinite(dsir(["\ud83d word", "a"], ["word"])).all()


def test_sampling_without_replacement_follows_the_weights():
    shares = np.array([0.5, 0.3, 0.2])
    orders = np.array([np.argsort(-np.log(shares) - gumbel(3, seed)) for seed in range(4000)])
    first = np.mean([orders[:, 0] == i for i in range(3)], axis=1)
    np.testing.assert_allclose(first, shares, atol=0.03)
    two = np.mean([(orders[:, :2] == i).any(axis=1) for i in range(3)], axis=1)
    left_out = [sum(shares[j] * shares[3 - i - j] / (1 - shares[j]) for j in {0, 1, 2} - {i})
                for i in range(3)]  # fmt: skip
    np.testing.assert_allclose(1 - two, left_out, atol=0.03)


@pytest.mark.parametrize(
    ("custom", "target", "options", "message"),
    [
        (["", " "], TARGET, {}, "custom texts hold no word"),
        (CUSTOM, [], {}, "target texts hold no word"),
        (CUSTOM, TARGET, {"num_buckets": 0}, "num_buckets=0"),
        (CUSTOM, TARGET, {"smoothing": -1.0}, "smoothing=-1.0"),
    ],
)
def test_what_cannot_be_compared_is_refused(custom, target, options, message):
    with pytest.raises(InputError, match=message):
        dsir(custom, target, **options)
