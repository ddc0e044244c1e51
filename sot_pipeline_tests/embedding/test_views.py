"""Prompt and answer apart: the split of a row, the composed vector, and what is embedded for it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sot_pipeline.embedding.embed import embed
from sot_pipeline.embedding.load import load_encoder
from sot_pipeline.embedding.views import compose, embed_rows, parts, vectors_fingerprint, view_for
from sot_pipeline.errors import InputError
from sot_pipeline_tests.embedding.test_embed import LetterEncoder
from sot_pipeline_tests.embedding.test_sentence import save_tiny_encoder
from sot_pipeline_tests.tiny_models import MISTRAL, save_tiny_model


class SentenceLetters(LetterEncoder):
    view = "apart"


def turns(**contents: str):
    return [{"role": role, "content": content} for role, content in contents.items()]


def pair(prompt: str, answer: str):
    return turns(user=prompt, assistant=answer)


ROWS = [pair("cab", "ab"), pair("cab", "dd"), pair("bb", "cab"), pair("e" * 30, "ab")]


def unit(vector) -> np.ndarray:
    return np.asarray(vector, dtype=float) / np.linalg.norm(vector)


def test_the_composed_vector_by_hand():
    # the answer's component along the prompt, 0.6, is halved; lengths do not matter
    composed = compose(np.array([[2.0, 0.0]]), np.array([[3.0, 4.0]]))
    a = unit([0.3, 0.8])
    expected = [np.sqrt(1 / 3), 0, np.sqrt(2 / 3) * a[0], np.sqrt(2 / 3) * a[1]]
    np.testing.assert_allclose(composed, [expected], atol=1e-6)
    assert composed.dtype == np.float32


def test_without_echo_removed_the_cosine_is_the_weighted_mean_of_the_parts():
    asked, answers = np.random.default_rng(0).normal(size=(2, 6, 4))
    x = compose(asked, answers, answer_share=0.75, echo=0.0)
    p, r = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (asked, answers))
    np.testing.assert_allclose(x @ x.T, 0.25 * p @ p.T + 0.75 * r @ r.T, atol=1e-6)


# a length of 0 is refused, and one near it is rounding
VECTORS = arrays(np.float32, (5, 3), elements=st.floats(-4, 4, width=16)).filter(
    lambda v: np.linalg.norm(v, axis=1).min() > 1e-2
)


@given(asked=VECTORS, answers=VECTORS, order=st.permutations(range(5)))
@settings(deadline=None)
def test_a_composed_vector_has_norm_1_and_is_a_function_of_its_row(asked, answers, order):
    composed = compose(asked, answers)
    np.testing.assert_allclose(np.linalg.norm(composed, axis=1), 1, atol=1e-5)
    order = np.array(order)
    np.testing.assert_array_equal(compose(asked[order], answers[order]), composed[order])


@pytest.mark.parametrize("sign", [1, -1])
def test_an_answer_that_repeats_its_prompt_keeps_its_direction(sign):
    p = unit([[1.0, 2.0, 2.0]])
    expected = np.concatenate([np.sqrt(1 / 3) * p, sign * np.sqrt(2 / 3) * p], axis=1)
    np.testing.assert_allclose(compose(p, sign * p), expected, atol=1e-6)


def test_a_vector_without_a_direction_is_an_error_and_never_nan():
    with pytest.raises(InputError, match="1 vectors of length 0"):
        compose(np.eye(2), np.array([[1.0, 0.0], [0.0, 0.0]]))


def test_the_answer_is_the_last_assistant_turn_and_the_rest_was_asked():
    system, question, hint, answer, more, thanks = (
        {"role": role, "content": content}
        for role, content in (
            ("system", "Be brief."), ("user", "Two plus three?"), ("assistant", "Which numbers?"),
            ("assistant", "Five."), ("user", "Two and three."), ("user", "Thanks."),
        )
    )  # fmt: skip
    asked, given_answer = parts([system, question, hint, more, answer, thanks])
    assert asked == [system, question, hint, more, thanks]
    assert given_answer == [{"role": "user", "content": "Five."}]


PROMPT, ANSWER = turns(user="Why?"), turns(user="Because.")


@pytest.mark.parametrize(
    ("conversation", "expected"),
    [
        (turns(user="Why?"), PROMPT),
        (turns(user="Why?", assistant=" \n"), PROMPT),
        (turns(assistant="Because."), ANSWER),
        (turns(user="", assistant="Because."), ANSWER),
        (turns(user="", assistant=""), turns(user="", assistant="")),
        (turns(user=""), turns(user="")),
    ],
)
def test_where_one_part_has_no_text_the_other_stands_for_both(conversation, expected):
    assert parts(conversation) == (expected, expected)


def test_rows_with_a_missing_part_have_vectors_like_any_other():
    rows = [turns(user="cab"), turns(assistant="cab"), pair("cab", "cab")]
    vectors = embed_rows(rows, SentenceLetters(), view="apart").vectors
    np.testing.assert_array_equal(vectors, vectors[[0, 0, 0]])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_rows_are_embedded_apart_and_composed_in_their_order():
    vectors = embed_rows(ROWS, SentenceLetters(), view="apart").vectors
    alone = [embed(rows, LetterEncoder()).vectors for rows in zip(*map(parts, ROWS), strict=True)]
    np.testing.assert_array_equal(vectors, compose(*alone))
    assert vectors.shape == (4, 6)


def test_the_whole_view_is_the_encoders_own_vector():
    result = embed_rows(ROWS, LetterEncoder(), view="whole")
    np.testing.assert_array_equal(result.vectors, embed(ROWS, LetterEncoder()).vectors)


@pytest.mark.parametrize("view", ["whole", "apart"])
def test_no_rows_give_no_vectors(view):
    width = 6 if view == "apart" else 3
    assert embed_rows([], SentenceLetters(), view=view).vectors.shape == (0, width)


def test_a_part_that_many_rows_share_is_embedded_once():
    encoder = SentenceLetters()
    result = embed_rows(ROWS, encoder, view="apart")
    # an answer that is another row's prompt is no new text either
    assert (
        sum(map(len, encoder.batches)) == result.num_embedded == len({"cab", "ab", "dd", "bb", "e"})
    )
    assert result.num_tokens == 3 + 2 + 2 + 2 + 20
    assert result.was_cut.tolist() == [False, False, False, True]


def test_parts_are_found_in_the_cache_again(tmp_path):
    first = embed_rows(ROWS, SentenceLetters(), view="apart", cache=tmp_path)
    encoder = SentenceLetters()
    more = [*ROWS, pair("cab", "new"), turns(user="dd")]
    second = embed_rows(more, encoder, view="apart", cache=tmp_path)
    assert encoder.batches == [[[ord(c) for c in "new"]]]
    assert (second.num_embedded, second.num_cached) == (1, 5)
    np.testing.assert_array_equal(second.vectors[:4], first.vectors)


def test_progress_counts_the_tokens_of_both_parts_as_one_stage():
    seen = []
    result = embed_rows(
        ROWS, SentenceLetters(batch_tokens=4), view="apart", progress=lambda *s: seen.append(s)
    )
    assert seen[0] == (0, result.num_tokens)
    assert seen[-1] == (result.num_tokens, result.num_tokens)
    assert seen == sorted(seen)


def test_the_view_follows_the_kind_of_encoder_unless_it_is_chosen(tmp_path):
    sentence = load_encoder(save_tiny_encoder(tmp_path / "sentence", {"pooling_mode": "mean"}))
    causal = load_encoder(save_tiny_model(tmp_path / "causal"))
    assert (view_for(sentence, "auto"), view_for(causal, "auto")) == ("apart", "whole")
    for encoder in (sentence, causal):
        assert view_for(encoder, "whole") == "whole"
        assert view_for(encoder, "apart") == "apart"


def test_a_sentence_encoders_row_does_not_depend_on_the_other_rows(tmp_path):
    encoder = load_encoder(save_tiny_encoder(tmp_path / "e", {"pooling_mode": "mean"}))
    rows = [pair("what is two", "five"), pair("why", "because so " * 9), turns(user="hello")]
    together = embed_rows(rows, encoder, view="apart").vectors
    assert together.shape == (3, 2 * encoder.dimension)
    for row, vector in zip(rows, together, strict=True):
        alone = embed_rows([row], encoder, view="apart").vectors[0]
        np.testing.assert_allclose(alone, vector, atol=1e-5)


def test_a_template_that_wants_turns_in_order_takes_an_answer_alone(tmp_path):
    encoder = load_encoder(save_tiny_model(tmp_path / "model", MISTRAL))
    vectors = embed_rows([pair("why", "because")], encoder, view="apart").vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_fingerprint_tells_views_apart():
    encoder = SentenceLetters()
    assert vectors_fingerprint(encoder, "whole") == encoder.fingerprint
    assert vectors_fingerprint(encoder, "apart") != encoder.fingerprint
