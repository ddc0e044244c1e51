"""Batches, progress, memory and the cache around any encoder."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sot_pipeline.embedding import embed as module
from sot_pipeline.embedding.embed import embed, plan_batches
from sot_pipeline.embedding.encoder import Tokens
from sot_pipeline.embedding.row_cache import RowCache
from sot_pipeline.errors import InputError


class LetterEncoder:
    """One token per letter; the vector counts them. Remembers its batches."""

    fingerprint = "letters"
    dimension = 3

    def __init__(self, batch_tokens=50, memory=10**9):
        self.batch_tokens, self.memory = batch_tokens, memory
        self.batches = []

    def tokenize(self, conversations):
        texts = ["".join(turn["content"] for turn in turns) for turns in conversations]
        return Tokens([[ord(c) for c in text[:20]] for text in texts], [len(t) > 20 for t in texts])

    def embed_batch(self, token_ids):
        if len(token_ids) * max(map(len, token_ids)) > self.memory:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        self.batches.append(token_ids)
        return np.stack([self.vector(row) for row in token_ids])

    @staticmethod
    def vector(row):
        return np.array([len(row), row.count(ord("a")), sum(row)], dtype=np.float32)


def rows(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


TEXTS = ["a", "bb", "a" * 30, "cab", "bb", "d" * 20, "a", "abcabc"]
RIGHT = np.stack([LetterEncoder.vector([ord(c) for c in text[:20]]) for text in TEXTS])


def test_vectors_come_back_in_row_order():
    result = embed(rows(*TEXTS), LetterEncoder())
    np.testing.assert_array_equal(result.vectors, RIGHT)
    assert result.vectors.dtype == np.float32


def test_the_same_text_is_embedded_once():
    encoder = LetterEncoder()
    result = embed(rows(*TEXTS), encoder)
    assert sum(map(len, encoder.batches)) == result.num_embedded == len(set(TEXTS))


def test_tokens_and_cut_rows_are_counted():
    result = embed(rows(*TEXTS), LetterEncoder())
    assert result.num_tokens == 1 + 2 + 20 + 3 + 20 + 6  # distinct texts, as far as read
    assert result.num_truncated == 1


def test_no_rows_give_no_vectors():
    result = embed([], LetterEncoder())
    assert result.vectors.shape == (0, 3)


def test_progress_counts_tokens_up_to_the_total():
    seen = []
    result = embed(rows(*TEXTS), LetterEncoder(), progress=lambda *step: seen.append(step))
    assert seen[0] == (0, result.num_tokens)
    assert seen[-1] == (result.num_tokens, result.num_tokens)
    assert seen == sorted(seen)


@pytest.mark.parametrize("memory", [20, 33, 60, 200])
def test_running_out_of_memory_halves_the_batch_and_changes_no_vector(memory):
    encoder = LetterEncoder(batch_tokens=10_000, memory=memory)
    result = embed(rows(*TEXTS), encoder)
    np.testing.assert_array_equal(result.vectors, RIGHT)
    assert all(len(b) * max(map(len, b)) <= memory for b in encoder.batches)


def test_a_row_that_never_fits_raises_what_the_device_said():
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        embed(rows(*TEXTS), LetterEncoder(memory=10))


def test_another_error_of_the_model_is_not_taken_for_a_full_memory():
    class Broken(LetterEncoder):
        def embed_batch(self, token_ids):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        embed(rows(*TEXTS), Broken())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_an_error_and_never_cached(tmp_path, value):
    class Overflowing(LetterEncoder):
        def embed_batch(self, token_ids):
            return np.full_like(super().embed_batch(token_ids), value)

    with pytest.raises(InputError, match="not finite"):
        embed(rows(*TEXTS), Overflowing(), cache=tmp_path)
    assert embed(rows(*TEXTS), LetterEncoder(), cache=tmp_path).num_cached == 0


def test_a_second_run_embeds_nothing(tmp_path):
    embed(rows(*TEXTS), LetterEncoder(), cache=tmp_path)
    encoder = LetterEncoder()
    result = embed(rows(*TEXTS), encoder, cache=tmp_path)
    assert encoder.batches == []
    assert (result.num_embedded, result.num_cached) == (0, len(set(TEXTS)))
    np.testing.assert_array_equal(result.vectors, RIGHT)


def test_a_new_row_costs_itself_alone(tmp_path):
    embed(rows(*TEXTS), LetterEncoder(), cache=tmp_path)
    encoder = LetterEncoder()
    embed(rows(*TEXTS, "new"), encoder, cache=tmp_path)
    assert encoder.batches == [[[ord(c) for c in "new"]]]


def test_an_interrupted_run_keeps_what_it_has(tmp_path):
    class Interrupted(LetterEncoder):
        def embed_batch(self, token_ids):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().embed_batch(token_ids)

    first = Interrupted(batch_tokens=1)  # one row a batch
    with pytest.raises(KeyboardInterrupt):
        embed(rows(*TEXTS), first, cache=tmp_path)
    result = embed(rows(*TEXTS), LetterEncoder(), cache=tmp_path)
    assert result.num_cached == 2
    np.testing.assert_array_equal(result.vectors, RIGHT)


@pytest.mark.parametrize("num_batches", range(1, 9))
def test_after_a_kill_the_rest_is_embedded_in_the_batches_it_would_have_been_in(
    tmp_path, monkeypatch, num_batches
):
    # a vector depends on its batch in the last digits: other batches would be another result
    class Killed(LetterEncoder):
        def embed_batch(self, token_ids):
            if len(self.batches) == num_batches:
                raise KeyboardInterrupt
            return super().embed_batch(token_ids)

    monkeypatch.setattr(module, "CHUNK_ROWS", 9)
    monkeypatch.setattr(module, "RowCache", partial(RowCache, shard_rows=3))
    texts = rows(*["ab" * (1 + i % 5) + "c" * i for i in range(15)])
    undisturbed, again = LetterEncoder(batch_tokens=30), LetterEncoder(batch_tokens=30)
    embed(texts, undisturbed)
    with monkeypatch.context() as patch:
        patch.setattr(RowCache, "flush", lambda cache: None)  # a kill leaves no time for it
        with pytest.raises(KeyboardInterrupt):
            embed(texts, Killed(batch_tokens=30), cache=tmp_path)
    embed(texts, again, cache=tmp_path)
    assert len(undisturbed.batches) > 8
    assert again.batches == undisturbed.batches[-len(again.batches) :]


def test_a_damaged_cache_is_redone_not_served(tmp_path):
    embed(rows(*TEXTS), LetterEncoder(), cache=tmp_path)
    for path in tmp_path.rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    result = embed(rows(*TEXTS), LetterEncoder(), cache=tmp_path)
    assert result.num_cached == 0
    np.testing.assert_array_equal(result.vectors, RIGHT)


def test_a_batch_depends_only_on_its_chunk(monkeypatch):
    # Rows appended behind a full chunk do not change how the chunk's rows are batched.
    monkeypatch.setattr(module, "CHUNK_ROWS", 4)
    texts = list(dict.fromkeys(TEXTS))
    short, long = LetterEncoder(), LetterEncoder()
    embed(rows(*texts[:4]), short)
    embed(rows(*texts[:4], "zz", "zzz"), long)
    assert long.batches[: len(short.batches)] == short.batches


@given(lengths=st.lists(st.integers(1, 40), max_size=60), budget=st.integers(1, 200))
@settings(deadline=None)
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    batches = list(plan_batches(lengths, budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    # Sorted: no batch holds a row longer than the shortest row before it.
    for before, after in pairwise(batches):
        assert min(lengths[row] for row in before) >= max(lengths[row] for row in after)
