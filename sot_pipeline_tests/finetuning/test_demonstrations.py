"""Which prompts safety is learnt from: seeded, never evaluated ones, stable under edits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.finetuning.demonstrations import asked, draw_prompts, whole_sentences


def prompt(text: str, system: str | None = None):
    turns = [{"role": "user", "content": text}]
    return [{"role": "system", "content": system}, *turns] if system else turns


PROMPTS = [prompt(f"question {i}") for i in range(40)]


def test_the_same_seed_draws_the_same_prompts_another_seed_others():
    first = draw_prompts(PROMPTS, 10, seed=0)
    assert len(set(first.places)) == 10
    assert first == draw_prompts(PROMPTS, 10, seed=0)
    assert first != draw_prompts(PROMPTS, 10, seed=1)


@given(st.permutations(range(40)))
def test_the_order_of_the_rows_does_not_matter(order):
    drawn = draw_prompts([PROMPTS[i] for i in order], 10, seed=3).places
    assert [order[place] for place in drawn] == draw_prompts(PROMPTS, 10, seed=3).places


def test_a_new_row_takes_at_most_one_place():
    before = {str(PROMPTS[i]) for i in draw_prompts(PROMPTS, 10, seed=0).places}
    longer = [*PROMPTS, prompt("one more")]
    after = {str(longer[i]) for i in draw_prompts(longer, 10, seed=0).places}
    assert len(before & after) >= 9


def test_fewer_prompts_than_asked_for_are_all_drawn():
    assert sorted(draw_prompts(PROMPTS, 99, seed=0).places) == list(range(40))


def test_a_prompt_occurs_once_and_the_others_are_counted():
    drawn = draw_prompts([*PROMPTS[:3], PROMPTS[0]], 9, seed=0)
    assert sorted(drawn.places) == [0, 1, 2]
    assert drawn.num_repeated == 1


def test_an_evaluation_prompt_is_left_out_whatever_its_case_white_space_or_system_turn():
    evaluated = asked([prompt("How many  Apples?\n", system="be brief")])
    prompts = [prompt("how MANY apples?"), prompt("how many pears?"), PROMPTS[0]]
    drawn = draw_prompts(prompts, 9, seed=0, leave_out=evaluated)
    assert sorted(drawn.places) == [1, 2]
    assert drawn.num_left_out == 1


def test_an_evaluation_prompt_inside_a_longer_conversation_is_left_out_too():
    longer = [*prompt("first"), {"role": "assistant", "content": "yes"}, *prompt("then")]
    assert draw_prompts([longer], 9, seed=0, leave_out=asked([prompt("first")])).places == []
    # what an assistant said is no question
    assert draw_prompts([longer], 9, seed=0, leave_out=asked([prompt("yes")])).places == [0]


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("I cannot help. Inst", "I cannot help."),
        ("I cannot help.", "I cannot help."),
        ('He said "no." And th', 'He said "no."'),
        ("version 1.5 is", "version 1.5 is"),
        ("Never! Ask again? M", "Never! Ask again?"),
        ("できません。申し訳", "できません。"),
        ("no sentence ends", "no sentence ends"),
        ("", ""),
    ],
)
def test_a_sentence_that_was_cut_off_goes(answer, kept):
    assert whole_sentences(answer) == kept
