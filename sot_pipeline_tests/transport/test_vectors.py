"""Solving on embeddings: the answers of the cost matrices, without the matrices."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.transport import kernel, tiles
from sot_pipeline.transport.cost import cosine_cost, pooled_mean, spreads
from sot_pipeline.transport.push_pull import learn_weights, learn_weights_from_embeddings
from sot_pipeline.transport.tiles import RowCosts, Storage
from sot_pipeline.transport.vectors import cosine_columns, spreads_of_cosines, storage_within
from sot_pipeline_tests.transport.problems import clusters

DATA = clusters()
SETS = (DATA.custom, DATA.safe, DATA.harmful)
CENTER = pooled_mean(DATA.safe)
CENTERS = {"none": None, "safe": CENTER}
STORAGES: list[tuple[Storage, Storage]] = [
    ("float32", "float32"),
    ("float32", "float16"),
    ("float16", "float16"),
    ("float16", "recomputed"),
    ("recomputed", "recomputed"),
]


def costs_of(custom=DATA.custom, center=CENTER):
    return tuple(cosine_cost(custom, other, center=center) for other in (DATA.safe, DATA.harmful))


# --- the unit of the costs --------------------------------------------------------------------


@pytest.mark.parametrize("center", CENTERS)
def test_the_spread_of_the_costs_is_known_without_them(center):
    columns = [cosine_columns(other, CENTERS[center]) for other in (DATA.safe, DATA.harmful)]
    expected = spreads(*costs_of(center=CENTERS[center]))
    assert spreads_of_cosines(DATA.custom, *columns) == pytest.approx(expected, rel=1e-4)


@given(seed=st.integers(0, 1_000), common=st.floats(0, 3))
@settings(deadline=None, max_examples=20)
def test_also_where_embeddings_share_a_large_direction(seed, common):
    rng = np.random.default_rng(seed)
    custom, safe, harmful = (rng.normal(common, 1, (k, 6)) for k in (30, 8, 11))
    center = pooled_mean(safe, harmful)
    expected = spreads(*(cosine_cost(custom, other, center=center) for other in (safe, harmful)))
    columns = [cosine_columns(other, center) for other in (safe, harmful)]
    assert spreads_of_cosines(custom, *columns) == pytest.approx(expected, rel=1e-4)


def test_costs_that_do_not_vary_have_the_unit_1():
    same = np.tile([1.0, 0.0], (4, 1)).astype(np.float32)
    assert spreads_of_cosines(same, cosine_columns(same, None)) == (1, 1)


# --- what fits into memory --------------------------------------------------------------------


def of_shape(num_rows, num_columns, width=8):
    """Rows that take no memory."""
    return RowCosts(np.broadcast_to(np.float32(0), (num_rows, width)), num_columns)


def least_limit(wanted, pull, push):
    """The smallest limit at which storages as fast as `wanted` are chosen."""
    order = [("float32", "float32"), ("float32", "float16"), ("float16", "float32"),
             ("float16", "float16"), ("float16", "recomputed"), ("recomputed", "float16"),
             ("recomputed", "recomputed")]  # fmt: skip

    def is_enough(limit):
        try:
            return order.index(storage_within(limit, pull, push)) <= order.index(wanted)
        except InputError:
            return False

    low, high = 0, 1 << 50
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    assert storage_within(high, pull, push) == wanted
    return high


def test_storage_is_the_fastest_that_fits():
    num_rows, safe, harmful = 1_000_000, 1_000, 600
    pull, push = of_shape(num_rows, safe), of_shape(num_rows, harmful)
    least = {wanted: least_limit(wanted, pull, push) for wanted in STORAGES}
    nothing = least["recomputed", "recomputed"]
    assert least["float32", "float32"] == nothing + num_rows * 4 * (safe + harmful)
    assert least["float32", "float16"] == nothing + num_rows * (4 * safe + 2 * harmful)
    assert least["float16", "float16"] == nothing + num_rows * 2 * (safe + harmful)
    # what is left are vectors and pieces: far less than the embeddings of a large model
    assert nothing < num_rows * 1_000


@given(num_rows=st.integers(1, 10**8), safe=st.integers(1, 10**4), harmful=st.integers(1, 10**4))
@settings(deadline=None, max_examples=20)
def test_more_memory_never_chooses_a_smaller_kernel(num_rows, safe, harmful):
    pull, push = of_shape(num_rows, safe), of_shape(num_rows, harmful)
    least = least_limit(("recomputed", "recomputed"), pull, push)
    stored = [
        sum(
            tiles.BYTES_PER_ENTRY[storage] * problem.num_columns
            for storage, problem in zip(storages, (pull, push), strict=True)
        )
        for storages in (storage_within(least + 10**k, pull, push) for k in range(15))
    ]
    assert stored == sorted(stored)
    assert all(num_rows * s <= 10**k for k, s in enumerate(stored))


def test_a_limit_below_the_least_is_refused_with_what_is_needed():
    pull, push = of_shape(1_000, 10), of_shape(1_000, 10)
    least = least_limit(("recomputed", "recomputed"), pull, push)
    with pytest.raises(InputError, match=f"memory_limit={least - 1:,} .*need {least:,} bytes"):
        storage_within(least - 1, pull, push)
    with pytest.raises(InputError, match="memory_limit=1,000 bytes; 60 rows need"):
        learn_weights_from_embeddings(*SETS, memory_limit=1_000)


# --- the fit ----------------------------------------------------------------------------------

learn = partial(learn_weights_from_embeddings, tolerance=2e-4)
learn_from_costs = partial(learn_weights, tolerance=2e-4)


def limit_for(storages):
    rows = [RowCosts(DATA.custom, len(other)) for other in (DATA.safe, DATA.harmful)]
    return least_limit(storages, *rows)


@pytest.mark.parametrize("relaxation", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("center", CENTERS)
def test_the_weights_are_those_of_the_cosine_costs(center, relaxation):
    fit = learn(*SETS, center=CENTERS[center], reference_relaxation=relaxation)
    expected = learn_from_costs(*costs_of(center=CENTERS[center]), reference_relaxation=relaxation)
    assert fit.converged
    assert fit.epsilon == pytest.approx(expected.epsilon, rel=1e-4)
    np.testing.assert_allclose(fit.log_weights, expected.log_weights, atol=1e-3)
    np.testing.assert_allclose(fit.pull_scores, expected.pull_scores, atol=1e-3)
    np.testing.assert_allclose(fit.push_scores, expected.push_scores, atol=1e-3)


def test_the_safe_reference_is_the_centre_unless_one_is_given():
    default, given_ = learn(*SETS), learn(*SETS, center=CENTER)
    np.testing.assert_array_equal(default.log_weights, given_.log_weights)
    assert default.center is not None
    np.testing.assert_allclose(default.center, CENTER, atol=1e-7)


@pytest.mark.parametrize("in_tiles", [False, True])
@pytest.mark.parametrize("storages", STORAGES)
def test_no_storage_moves_the_weights(monkeypatch, storages, in_tiles):
    expected = learn_from_costs(*costs_of(), reference_relaxation=0.0)
    limit = limit_for(storages)
    if in_tiles:
        row = len(DATA.safe) * 4  # bytes of float32
        monkeypatch.setattr(tiles, "_TILE_BYTES", 23 * row)
        monkeypatch.setattr(tiles, "_PIECE_BYTES", 10 * row)
        monkeypatch.setattr(kernel, "_BLOCK_BYTES", 4 * row)
        monkeypatch.setattr(kernel, "_WHOLE_BYTES", 0)
        limit = limit_for(storages)
    fit = learn(*SETS, memory_limit=limit, reference_relaxation=0.0)
    assert fit.storage == "+".join(dict.fromkeys(storages))
    assert fit.converged
    np.testing.assert_allclose(fit.log_weights, expected.log_weights, atol=1e-3)


@pytest.mark.parametrize("storages", [STORAGES[0], STORAGES[2], STORAGES[4]])
def test_embeddings_may_lie_on_disk_and_in_half_precision(tmp_path, storages):
    half = DATA.custom.astype(np.float16)
    np.save(tmp_path / "custom.npy", half)
    on_disk = np.load(tmp_path / "custom.npy", mmap_mode="r")
    assert isinstance(on_disk, np.memmap)
    fit = learn(on_disk, *SETS[1:], memory_limit=limit_for(storages))
    expected = learn_from_costs(*costs_of(half.astype(np.float32)))
    np.testing.assert_allclose(fit.log_weights, expected.log_weights, atol=1e-3)


def test_the_length_of_a_vector_does_not_matter():
    lengths = np.geomspace(1e-3, 1e3, len(DATA.custom))[:, None].astype(np.float32)
    fit = learn(DATA.custom * lengths, *SETS[1:])
    np.testing.assert_allclose(fit.log_weights, learn(*SETS).log_weights, atol=1e-3)


def with_row(row, values):
    changed = DATA.custom.copy()
    changed[row] = values
    return changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"custom": with_row(7, np.nan)}, "custom: row 7 holds NaN or infinite"),
        ({"custom": with_row(7, np.inf)}, "custom: row 7 holds NaN or infinite"),
        ({"custom": with_row(7, 0)}, "custom: row 7 is all zeros"),
        ({"custom": DATA.custom[:, :5]}, "custom has 5 dimensions, the references 8"),
        ({"custom": DATA.custom[0]}, "custom is an array of float32 of shape"),
        ({"custom": DATA.custom[:0]}, "neither of them 0"),
        ({"custom": DATA.custom.astype(str)}, "custom is an array of <U"),
        ({"safe": DATA.safe[:, :5]}, "safe has 5 dimensions, harmful 8"),
        ({"safe": DATA.safe[:, :5], "center": None}, "safe has 5 dimensions, harmful 8"),
        ({"harmful": DATA.harmful[:, :5]}, "safe has 8 dimensions, harmful 5"),
        ({"harmful": DATA.harmful * 0, "center": None}, "reference: row 0 is all zeros"),
        ({"center": np.zeros(7)}, r"center has shape \(7,\)"),
        ({"center": np.full(8, np.nan)}, "center has shape"),
        ({"lambda_push": 2.0}, "lambda_push=2.0"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(changed, message):
    arguments = dict(zip(("custom", "safe", "harmful"), SETS, strict=True)) | changed
    with pytest.raises(InputError, match=message):
        learn_weights_from_embeddings(**arguments)


@pytest.mark.parametrize("common", [10, 30])
def test_the_spread_is_right_also_where_all_embeddings_nearly_coincide(common):
    rng = np.random.default_rng(0)
    custom, safe, harmful = (rng.normal(common, 1, (k, 64)) for k in (500, 80, 60))
    expected = spreads(*(cosine_cost(custom, other) for other in (safe, harmful)))
    columns = [cosine_columns(other, None) for other in (safe, harmful)]
    assert spreads_of_cosines(custom, *columns) == pytest.approx(expected, rel=2e-2)


def test_an_unknown_centre_is_refused():
    with pytest.raises(InputError, match="center"):
        learn_weights_from_embeddings(*SETS, center="references")  # pyright: ignore[reportArgumentType]
