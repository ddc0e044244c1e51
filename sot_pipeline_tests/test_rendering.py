"""What the model reads, and which of it it learns to write."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sot_pipeline.errors import InputError
from sot_pipeline.rendering import render, render_text, render_with_answer_mask
from sot_pipeline_tests.tiny_models import CONTROL, GEMMA, LLAMA3, MISTRAL, TEMPLATES, WORDS
from sot_pipeline_tests.tiny_models import make_tokenizer as make


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **extra):
    return {"role": "assistant", "content": content, **extra}


def learnt(tokenizer, messages, **options):
    """The text of each run of answer tokens."""
    rendered = render_with_answer_mask(tokenizer, messages, **options)
    runs, previous = [], False
    for token, is_answer in zip(rendered.token_ids, rendered.is_answer, strict=True):
        if is_answer and not previous:
            runs.append([])
        if is_answer:
            runs[-1].append(token)
        previous = is_answer
    return [tokenizer.decode(run) for run in runs]


ONE_TURN = [user("what is two plus three"), assistant("five")]
TWO_TURNS = [*ONE_TURN, user("again please"), assistant("the sum is five")]
END = {"llama3": "<|eot_id|>", "qwen3": "<|im_end|>", "mistral": "</s>", "gemma": "<end_of_turn>"}
END["none"] = "</s>"
# Where the header does not end in white space, the model writes the blank itself.
BLANK = {"mistral": " ", "none": " "}


@pytest.mark.parametrize("family", TEMPLATES)
def test_every_answer_and_its_end_token_are_learnt_and_nothing_else(family):
    blank, end = BLANK.get(family, ""), END[family]
    expected = [f"{blank}five{end}", f"{blank}the sum is five{end}"]
    assert learnt(make(TEMPLATES[family]), TWO_TURNS) == expected


@pytest.mark.parametrize("family", TEMPLATES)
def test_masking_does_not_change_the_tokens(family):
    tokenizer = make(TEMPLATES[family])
    rendered = render_with_answer_mask(tokenizer, TWO_TURNS)
    assert rendered.token_ids == render(tokenizer, TWO_TURNS)
    assert rendered.num_cut == 0


@pytest.mark.parametrize("family", TEMPLATES)
def test_what_comes_before_a_last_answer_is_the_generation_prompt(family):
    # Training and generation must agree on what the model has read when it begins to answer.
    tokenizer = make(TEMPLATES[family])
    rendered = render_with_answer_mask(tokenizer, ONE_TURN)
    prompt = rendered.token_ids[: rendered.is_answer.index(True)]
    assert prompt == render(tokenizer, ONE_TURN[:1], add_generation_prompt=True)


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_turn_marked_train_false_is_read_but_not_learnt(family):
    tokenizer = make(TEMPLATES[family])
    marked = [user("hello"), assistant("two", train=False), *TWO_TURNS[2:]]
    unmarked = [user("hello"), assistant("two"), *TWO_TURNS[2:]]
    assert learnt(tokenizer, marked) == learnt(tokenizer, unmarked)[1:]
    assert render(tokenizer, marked) == render(tokenizer, unmarked)


def test_an_empty_think_block_of_the_template_is_not_learnt():
    tokenizer = make(TEMPLATES["qwen3"])
    assert "<think>\n\n</think>" in render_text(tokenizer, ONE_TURN)
    assert learnt(tokenizer, ONE_TURN) == ["five<|im_end|>"]


def test_reasoning_that_the_row_itself_holds_is_learnt():
    messages = [user("hello"), assistant("<think>\nso\n</think>\n\nfive")]
    [text] = learnt(make(TEMPLATES["qwen3"]), messages)
    assert "so" in text
    assert text.endswith("five<|im_end|>")


def test_reasoning_that_the_template_drops_from_an_earlier_turn_is_an_error():
    messages = [user("hello"), assistant("<think>so</think>five"), *TWO_TURNS[2:]]
    with pytest.raises(InputError, match=r'turn 2.*mark earlier answers "train": false'):
        render_with_answer_mask(make(TEMPLATES["qwen3"]), messages)
    messages[1]["train"] = False
    assert learnt(make(TEMPLATES["qwen3"]), messages) == ["the sum is five<|im_end|>"]


def test_a_system_turn_that_moves_when_turns_follow_is_an_error():
    # The template writes the system turn into the last user turn: the first answer of a
    # longer conversation was never read behind it.
    users = "(turns | selectattr('role', 'equalto', 'user') | list)"
    tokenizer = make(MISTRAL.replace("loop.last and system", f"m == {users}[-1] and system"))
    messages = [{"role": "system", "content": "be brief"}, *TWO_TURNS]
    with pytest.raises(InputError, match="turn 3 of the conversation"):
        render_with_answer_mask(tokenizer, messages)
    assert learnt(tokenizer, messages[:3]) == [" five</s>"]


def test_a_system_turn_that_is_dropped_is_an_error():
    no_system = (
        "{% for m in messages if m['role'] != 'system' %}{{ m['content'] + ';' }}{% endfor %}"
    )
    with pytest.raises(InputError, match="leaves out or rewrites the system turn"):
        render_with_answer_mask(
            make(no_system), [{"role": "system", "content": "be brief"}, *ONE_TURN]
        )


def test_a_system_turn_that_only_generation_writes_stands_before_the_answer():
    # Mistral 7B v0.3 writes it only where the last turn is the user's.
    tokenizer, asked = make(MISTRAL), [{"role": "system", "content": "be brief"}, *TWO_TURNS[:3]]
    asked[2] = {**asked[2], "train": False}
    rendered = render_with_answer_mask(tokenizer, [*asked, *TWO_TURNS[3:], user("hello")])
    prompt = render(tokenizer, asked, add_generation_prompt=True)
    assert rendered.token_ids[: len(prompt)] == prompt
    assert tokenizer.decode(rendered.token_ids[len(prompt) :]) == " the sum is five</s>"
    assert rendered.is_answer.index(True) == len(prompt)


def test_a_template_that_forgets_old_turns_is_an_error():
    last_two = "{% for m in messages[-2:] %}{{ m['role'] + ':' + m['content'] + ';' }}{% endfor %}"
    with pytest.raises(InputError, match="leaves out or rewrites the user turn"):
        render_with_answer_mask(make(last_two), TWO_TURNS)


def test_a_template_that_leaves_out_answers_is_an_error():
    users_only = (
        "{% for m in messages if m['role'] == 'user' %}{{ m['content'] + ';' }}{% endfor %}"
    )
    with pytest.raises(InputError, match="leaves out the assistant's answer"):
        render_with_answer_mask(make(users_only), ONE_TURN)


@pytest.mark.parametrize(
    ("template", "messages", "found"),
    [
        (
            GEMMA,
            [{"role": "system", "content": "be brief"}, *ONE_TURN],
            "System role not supported",
        ),
        (MISTRAL, [user("hello"), user("again"), assistant("five")], "must alternate"),
    ],
)
def test_what_a_template_refuses_is_told_in_its_words(template, messages, found):
    with pytest.raises(InputError, match=found):
        render(make(template), messages)


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([user("hello")], "no assistant turn to learn"),
        ([user("hello"), assistant("five", train=False)], "no assistant turn to learn"),
        ([], "no assistant turn"),
    ],
)
def test_nothing_to_learn_is_an_error(messages, found):
    with pytest.raises(InputError, match=found):
        render_with_answer_mask(make(LLAMA3), messages)


def test_an_empty_conversation_cannot_be_rendered():
    with pytest.raises(InputError, match="empty"):
        render(make(LLAMA3), [])


def test_an_answer_without_a_prompt_is_an_error():
    bare = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(InputError, match="All of the 1 tokens"):
        render_with_answer_mask(make(bare), [assistant("five")])


def test_an_empty_answer_without_an_end_token_is_an_error():
    bare = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(InputError, match="None of the 1 tokens"):
        render_with_answer_mask(make(bare), [user("hello"), assistant("")])


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("token", CONTROL)
def test_no_row_can_forge_a_turn(family, token):
    # The row spells out control tokens; as many of them as in a harmless row come out.
    tokenizer = make(TEMPLATES[family])
    control = set(tokenizer.convert_tokens_to_ids(CONTROL))
    forged = [user(f"hello{token}user"), assistant(f"five{token}six")]
    honest = [user("hello again user"), assistant("five again six")]

    def controls(messages):
        return [i for i in render_with_answer_mask(tokenizer, messages).token_ids if i in control]

    assert controls(forged) == controls(honest)


def test_a_token_merged_across_the_border_counts_as_answer():
    # Split at blanks only: 'answer=two' and 'five.' + end are single tokens.
    tokenizer = make(
        "{% for m in messages %}{{ m['role'] + '=' + m['content'] + ' ' }}{% endfor %}", split=r"\s"
    )
    rendered = render_with_answer_mask(
        tokenizer, [user("hello"), assistant("two three"), user("so")]
    )
    merged = ["user=hello", " ", "assistant=two", " ", "three", " ", "user=so", " "]
    answer = [text for text, kept in zip(merged, rendered.is_answer, strict=True) if kept]
    assert answer == ["assistant=two", " ", "three", " "]


def test_byte_pairs_that_merge_the_blank_with_the_first_word_are_masked_by_prefix():
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    rendered = render_with_answer_mask(tokenizer, [user("hello"), assistant("two plus Ω")])
    ids = [i for i, kept in zip(rendered.token_ids, rendered.is_answer, strict=True) if kept]
    assert backend.decode(ids, skip_special_tokens=False) == " two plus Ω</s>"
    assert len(ids) < len(" two plus Ω")  # they did merge
    prompt = rendered.token_ids[: rendered.is_answer.index(True)]
    assert prompt == render(tokenizer, [user("hello")], add_generation_prompt=True)


sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
conversations = st.lists(st.tuples(sentences, sentences), min_size=1, max_size=4).map(
    lambda pairs: [turn for q, a in pairs for turn in (user(q), assistant(a))]
)
TOKENIZERS = {family: make(template) for family, template in TEMPLATES.items()}


@given(messages=conversations, family=st.sampled_from(list(TEMPLATES)))
@settings(deadline=None)
def test_as_many_answers_are_learnt_as_there_are_assistant_turns(messages, family):
    answers = [turn["content"] for turn in messages if turn["role"] == "assistant"]
    expected = [BLANK.get(family, "") + answer + END[family] for answer in answers]
    assert learnt(TOKENIZERS[family], messages) == expected


@given(
    messages=conversations, family=st.sampled_from(list(TEMPLATES)), max_length=st.integers(2, 80)
)
@settings(deadline=None)
def test_truncation_keeps_the_answer_and_says_what_it_cut(messages, family, max_length):
    tokenizer = TOKENIZERS[family]
    whole = render_with_answer_mask(tokenizer, messages)
    cut = render_with_answer_mask(tokenizer, messages, max_length=max_length)
    assert len(cut.token_ids) == len(cut.is_answer) <= max_length
    assert cut.num_cut == len(whole.token_ids) - len(cut.token_ids)
    assert any(cut.is_answer)
    assert not cut.is_answer[0]  # something to predict from
    assert set(learnt(tokenizer, messages, max_length=max_length)[1:]) <= set(
        learnt(tokenizer, messages)
    )
    [*_, last] = learnt(tokenizer, messages)
    if max_length >= len(tokenizer.encode(last)) + 2:
        assert learnt(tokenizer, messages, max_length=max_length)[-1] == last


def test_an_older_answer_that_lost_its_prompt_is_read_and_not_learnt():
    tokenizer = TOKENIZERS["qwen3"]
    messages = [
        turn
        for q, a in [("be", "be"), ("be", "be"), ("be", "be be be"), ("be", "be be be be")]
        for turn in (user(q), assistant(a))
    ]
    whole = render_with_answer_mask(tokenizer, messages)
    starts = [
        i for i in range(1, len(whole.is_answer)) if whole.is_answer[i - 1 : i + 1] == [False, True]
    ]
    cut = render_with_answer_mask(tokenizer, messages, max_length=len(whole.token_ids) - starts[1])
    assert not cut.is_answer[0]
    assert any(cut.is_answer)


def test_truncation_keeps_the_first_token_where_it_opens_the_sequence():
    tokenizer = make(LLAMA3)
    cut = render_with_answer_mask(tokenizer, TWO_TURNS, max_length=10)
    assert cut.token_ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(cut.token_ids).endswith("the sum is five<|eot_id|>")


def test_an_answer_longer_than_the_window_keeps_its_beginning_behind_some_prompt():
    tokenizer = make(LLAMA3)
    cut = render_with_answer_mask(tokenizer, [user("hello"), assistant("two " * 50)], max_length=16)
    assert cut.is_answer.count(True) == 12
    assert tokenizer.decode(cut.token_ids[-12:]).startswith("two two")


def test_a_window_of_one_token_is_an_error():
    with pytest.raises(InputError, match="at least 2"):
        render_with_answer_mask(make(LLAMA3), ONE_TURN, max_length=1)
