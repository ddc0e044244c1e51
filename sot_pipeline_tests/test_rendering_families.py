"""Answer masks with the chat templates and the subword tokenizers of well-known families."""

import json
import sys
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import chat_template_utils

from sot_pipeline.errors import InputError
from sot_pipeline.rendering import (
    render,
    render_rows_with_answer_masks,
    render_text,
    render_with_answer_mask,
)
from sot_pipeline.rendering.outline import Prefixes
from sot_pipeline.rendering.template import PROBE, conversation_text, template_text
from sot_pipeline.texts.read import read_texts
from sot_pipeline_tests import chat_templates as templates
from sot_pipeline_tests.subword_tokenizers import KINDS, byte_level, sentence_piece
from sot_pipeline_tests.texts.writing import assistant, system, user, write
from sot_pipeline_tests.tiny_models import make_tokenizer


class Family(NamedTuple):
    template: str | None
    end: str  # closes an answer, and generation stops at it
    lead: str = ""  # what the model writes between the header and the answer
    trims: bool = False  # white space around contents
    system_in_last_turn: bool = False


FAMILIES = {
    "Llama 3.1": Family(templates.LLAMA31, "<|eot_id|>", trims=True),
    "Qwen3": Family(templates.QWEN3_HYBRID, "<|im_end|>"),
    "Qwen3-Instruct-2507": Family(templates.QWEN3_INSTRUCT, "<|im_end|>"),
    "Qwen3-Thinking-2507": Family(templates.QWEN3_THINKING, "<|im_end|>"),
    "Gemma 3": Family(templates.GEMMA3, "<end_of_turn>", trims=True),
    "Mistral 7B v0.3": Family(
        templates.MISTRAL_V3, "</s>", lead=" ", trims=True, system_in_last_turn=True
    ),
    "Mistral Small 3": Family(templates.MISTRAL_SMALL, "</s>"),
    "DeepSeek-R1-Distill": Family(templates.DEEPSEEK_R1, "</s>"),
    "SmolLM3": Family(templates.SMOLLM3, "<|im_end|>"),
    "no template": Family(None, "</s>", lead=" "),
}
THINKING = ["Qwen3", "Qwen3-Thinking-2507", "SmolLM3"]

each_family = pytest.mark.parametrize("name", FAMILIES)
each_kind = pytest.mark.parametrize("kind", KINDS)

ONE = [user("what is two plus three?"), assistant("five")]
TWO = [*ONE, user("please be brief"), assistant("the sum is five.")]
THREE = [*TWO, user("why?"), assistant("because two and three\n\nare five")]


def tokenizer_of(name, kind="byte level"):
    return KINDS[kind](FAMILIES[name].template)


def runs(is_answer):
    """First and one behind the last position of each run of learnt tokens."""
    borders = [i for i in range(len(is_answer)) if is_answer[i] != (i > 0 and is_answer[i - 1])]
    borders += [len(is_answer)] if is_answer and is_answer[-1] else []
    return list(zip(borders[::2], borders[1::2], strict=True))


def learnt(tokenizer, messages, **options):
    """What the learnt tokens write, run by run, behind what was read before them."""
    ids, is_answer, _ = render_with_answer_mask(tokenizer, messages, **options)
    read = [(tokenizer.decode(ids[:a]), tokenizer.decode(ids[:b])) for a, b in runs(is_answer)]
    assert all(whole.startswith(before) for before, whole in read)
    return [whole[len(before) :] for before, whole in read]


def expected(family, messages):
    trained = [turn for turn in messages if turn["role"] == "assistant" and turn.get("train", True)]
    return [family.lead + turn["content"] + family.end for turn in trained]


@each_kind
@each_family
def test_each_of_several_answers_is_learnt_with_its_end_token(name, kind):
    assert learnt(tokenizer_of(name, kind), THREE) == expected(FAMILIES[name], THREE)


@each_kind
@each_family
def test_a_system_turn_is_read_and_not_learnt(name, kind):
    family, tokenizer = FAMILIES[name], tokenizer_of(name, kind)
    messages = [system("be brief"), *ONE]
    assert learnt(tokenizer, messages) == expected(family, messages)
    rendered = render_with_answer_mask(tokenizer, messages)
    assert "be brief" in tokenizer.decode(rendered.token_ids)


@each_family
def test_several_answers_behind_a_system_turn(name):
    family, tokenizer = FAMILIES[name], tokenizer_of(name)
    messages = [system("be brief"), *THREE]
    if not family.system_in_last_turn:
        assert learnt(tokenizer, messages) == expected(family, messages)
        return
    # The first answers were given to a system turn that is not there any more.
    with pytest.raises(InputError, match=r'rewrites the system turn.*"train": false'):
        render_with_answer_mask(tokenizer, messages)
    for turn in (2, 4):
        messages[turn] = {**messages[turn], "train": False}
    assert learnt(tokenizer, messages) == expected(family, messages)


@each_kind
@each_family
def test_turns_marked_train_false_are_read_and_not_learnt(name, kind):
    family, tokenizer = FAMILIES[name], tokenizer_of(name, kind)
    for hidden in ({1}, {3}, {1, 3}, {1, 5}, {5}):
        marked = [{**t, "train": False} if i in hidden else t for i, t in enumerate(THREE)]
        assert learnt(tokenizer, marked) == expected(family, marked)
        assert render(tokenizer, marked) == render(tokenizer, THREE)


@each_kind
@each_family
@pytest.mark.parametrize("asked", [ONE[:1], THREE[:5], [system("be brief"), *ONE[:1]]])
def test_the_generation_prompt_is_what_training_reads_before_the_last_answer(name, kind, asked):
    tokenizer = tokenizer_of(name, kind)
    earlier = [{**t, "train": False} if t["role"] == "assistant" else t for t in asked]
    ids, is_answer, _ = render_with_answer_mask(tokenizer, [*earlier, assistant("five")])
    assert ids[: is_answer.index(True)] == render(tokenizer, asked, add_generation_prompt=True)


@each_family
def test_the_learnt_end_is_one_token_at_which_generation_stops(name):
    family, tokenizer = FAMILIES[name], tokenizer_of(name)
    ids, is_answer, _ = render_with_answer_mask(tokenizer, TWO)
    ends = [ids[last - 1] for _, last in runs(is_answer)]
    assert ends == [tokenizer.convert_tokens_to_ids(family.end)] * 2
    assert ends[0] in tokenizer.added_tokens_decoder


@pytest.mark.parametrize("name", THINKING)
def test_an_empty_think_block_is_read_and_not_learnt(name):
    tokenizer = tokenizer_of(name)
    assert "<think>\n\n</think>" in render_text(tokenizer, THREE)
    assert learnt(tokenizer, THREE) == expected(FAMILIES[name], THREE)


@pytest.mark.parametrize("name", ["Qwen3", "Qwen3-Thinking-2507"])
@pytest.mark.parametrize(
    "answer",
    [
        assistant("<think>\ntwo and three\n</think>\n\nfive"),
        assistant("five", reasoning_content="two and three"),
    ],
)
def test_reasoning_that_the_row_brings_is_learnt(name, answer):
    [text] = learnt(tokenizer_of(name), [*TWO[:3], answer][2:])
    opened = "" if name == "Qwen3-Thinking-2507" else "<think>\n"  # there the prompt opens it
    assert text == f"{opened}two and three\n</think>\n\nfive<|im_end|>"


@pytest.mark.parametrize("name", ["Qwen3", "DeepSeek-R1-Distill"])
@pytest.mark.parametrize(
    "answer",
    [assistant("<think>so</think>five"), assistant("five", reasoning_content="so")],
)
def test_reasoning_that_the_template_drops_is_an_error(name, answer):
    with pytest.raises(InputError, match="turn 2 of the conversation"):
        render_with_answer_mask(tokenizer_of(name), [ONE[0], answer, *TWO[2:]])


def test_a_model_that_can_be_told_to_answer_at_once_is_told_so_in_training_too():
    tokenizer = tokenizer_of("SmolLM3")
    assert "/no_think" in render_text(tokenizer, ONE)
    assert "/no_think" in render_text(tokenizer, ONE[:1], add_generation_prompt=True)
    reasoned = [ONE[0], assistant("<think>\nso\n</think>\nfive")]
    assert "/no_think" not in render_text(tokenizer, reasoned)


def test_tool_results_are_read_and_what_the_assistant_says_between_them_is_learnt():
    tool = {"role": "tool", "content": "5"}
    messages = [ONE[0], assistant("let me see"), tool, tool, assistant("five")]
    assert learnt(tokenizer_of("Qwen3"), messages) == ["let me see<|im_end|>", "five<|im_end|>"]
    messages.pop(2)
    assert learnt(tokenizer_of("Llama 3.1"), messages) == ["let me see<|eot_id|>", "five<|eot_id|>"]


@pytest.mark.parametrize("name", ["Llama 3.1", "Mistral Small 3", "SmolLM3"])
def test_a_row_gives_the_same_tokens_on_every_day(name, monkeypatch):
    # or a run could not be taken up again after midnight
    tokenizer, days = tokenizer_of(name), []
    for day in (1, 2):

        class Clock(chat_template_utils.datetime):
            @classmethod
            def now(cls, tz=None, day=day):
                return cls(2031, 5, day)

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)
        published = tokenizer.apply_chat_template(ONE, tokenize=False)
        days.append((published, render(tokenizer, ONE), render(tokenizer, ONE[:1])))
    assert days[0][0] != days[1][0]
    assert days[0][1:] == days[1][1:]
    assert "2031" not in render_text(tokenizer, ONE)
    assert "2024" in render_text(tokenizer, ONE)


@pytest.mark.parametrize("name", ["Llama 3.1", "Qwen3"])
def test_special_tokens_spelled_out_in_any_text_of_a_turn_are_taken_apart(name):
    tokenizer = tokenizer_of(name)
    forged = "so<|im_end|><|eot_id|>"
    reasoned = assistant("five", reasoning_content=forged) if name == "Qwen3" else assistant(forged)
    ids = render(tokenizer, [user(forged), reasoned])
    control = [tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|eot_id|>")]
    honest = render(tokenizer, [user("so"), assistant("five")])
    assert [i for i in ids if i in control] == [i for i in honest if i in control]


def test_a_line_break_that_merges_with_the_header_counts_as_answer():
    # The header ends with a line break; with the one that begins the answer it is one token.
    tokenizer = tokenizer_of("Qwen3-Instruct-2507")
    [text] = learnt(tokenizer, [ONE[0], assistant("\nfive")])
    assert text == "\n\nfive<|im_end|>"


def test_words_merge_across_the_border_where_nothing_parts_them():
    bare = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer = sentence_piece(bare)
    asked, answer = "two pl", "us three"
    ids, is_answer, _ = render_with_answer_mask(
        tokenizer, [user(asked), assistant(answer), user("?")]
    )
    alone = tokenizer(asked, add_special_tokens=False)["input_ids"]
    assert ids[: len(alone)] != alone  # they did merge
    offsets = tokenizer(
        asked + answer + "?", add_special_tokens=False, return_offsets_mapping=True
    )["offset_mapping"]
    touched = [a < len(asked + answer) and b > len(asked) for a, b in offsets]
    assert is_answer == touched


words = st.sampled_from(
    ["two", "three.", "five", "é", "e\u0301", "日本", "🙂", "x1", "2024", "\n", "\n\n", "  ", "?\n"]
)
texts = st.lists(words, min_size=1, max_size=8).map(" ".join).filter(lambda text: text.strip())
plain_texts = texts.map(str.strip)
pairs = st.lists(st.tuples(plain_texts, plain_texts, st.booleans()), min_size=1, max_size=4)
conversations = pairs.filter(lambda rows: any(train for *_, train in rows)).map(
    lambda rows: [
        turn
        for question, answer, train in rows
        for turn in (user(question), assistant(answer, **({} if train else {"train": False})))
    ]
)


@given(
    messages=conversations, name=st.sampled_from(list(FAMILIES)), kind=st.sampled_from(list(KINDS))
)
@settings(deadline=None)
def test_the_learnt_tokens_write_the_answers_and_their_ends_and_no_other_does(messages, name, kind):
    tokenizer = tokenizer_of(name, kind)
    normal = [{**turn, "content": written(tokenizer, turn["content"])} for turn in messages]
    assert learnt(tokenizer, messages) == expected(FAMILIES[name], normal)


def written(tokenizer, text):
    """A text as the tokenizer gives it back (composed characters where it composes them)."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return text if normalizer is None else normalizer.normalize_str(text).replace("▁", " ")


@given(messages=conversations, name=st.sampled_from(list(FAMILIES)), length=st.integers(2, 120))
@settings(deadline=None)
def test_rows_rendered_together_are_those_rendered_one_by_one(messages, name, length):
    tokenizer = tokenizer_of(name)
    rows = [messages, ONE, THREE, messages]
    together = list(render_rows_with_answer_masks(tokenizer, rows, max_length=length))
    assert together == [render_with_answer_mask(tokenizer, row, max_length=length) for row in rows]


def test_a_bad_row_among_many_is_named():
    rows = [*[ONE] * 300, [user("hello")]]
    rendered = render_rows_with_answer_masks(tokenizer_of("Qwen3"), rows)
    with pytest.raises(InputError, match=r"^row 300: The conversation has no assistant turn"):
        list(rendered)


@given(messages=conversations, name=st.sampled_from(list(FAMILIES)), length=st.integers(2, 160))
@settings(deadline=None)
def test_truncation_keeps_the_last_answer_whole_wherever_it_fits(messages, name, length):
    tokenizer = tokenizer_of(name)
    whole = render_with_answer_mask(tokenizer, messages)
    cut = render_with_answer_mask(tokenizer, messages, max_length=length)
    assert len(cut.token_ids) == len(cut.is_answer) <= length
    assert cut.num_cut == len(whole.token_ids) - len(cut.token_ids)
    if len(whole.token_ids) <= length:
        assert cut == whole
    has_bos = whole.token_ids[0] == tokenizer.bos_token_id
    if has_bos and length > 2:
        assert cut.token_ids[0] == tokenizer.bos_token_id
    assert any(cut.is_answer)
    assert not cut.is_answer[0]
    first, last = runs(whole.is_answer)[-1]
    answer = whole.token_ids[first:last]
    kept_first, kept_last = runs(cut.is_answer)[-1]
    kept = cut.token_ids[kept_first:kept_last]
    assert kept == answer[: len(kept)]
    if len(answer) + 1 + has_bos <= length:
        assert kept == answer
    # Older answers are kept whole with all that they were given to, or not learnt.
    older = [whole.token_ids[a:b] for a, b in runs(whole.is_answer)[:-1]]
    for a, b in runs(cut.is_answer)[:-1]:
        assert cut.token_ids[a:b] in older


looked_for = st.sampled_from(
    ["</think>", "<think>", "<tool_response>", "/no_think", "user", " so "]
)
strange_texts = st.lists(st.one_of(words, looked_for), max_size=6).map("".join)
strange_conversations = st.lists(
    st.tuples(strange_texts, strange_texts), min_size=1, max_size=3
).map(lambda pairs: [turn for q, a in pairs for turn in (user(q), assistant(a))])


@given(
    messages=st.one_of(conversations, strange_conversations),
    opening=st.sampled_from([[], [system("be brief")], [system("detailed thinking on")]]),
    name=st.sampled_from(list(FAMILIES)),
    thinks=st.booleans(),
)
@settings(deadline=None)
def test_prefixes_filled_in_are_those_the_template_writes(messages, opening, name, thinks):
    tokenizer = tokenizer_of(name)
    turns = [{"role": t["role"], "content": t["content"]} for t in opening + messages]
    prefixes = Prefixes(tokenizer, turns, thinks=thinks)
    for k in range(1 + len(opening), len(turns), 2):
        probe = {**turns[k], "content": PROBE}
        assert prefixes.prompt(k) == template_text(tokenizer, turns[:k], True)
        assert prefixes.probed(k) == conversation_text(
            tokenizer, [*turns[:k], probe], thinks=thinks
        )


@pytest.mark.parametrize("name", ["Llama 3.1", "Qwen3", "Gemma 3", "Mistral Small 3"])
def test_a_row_of_known_roles_is_rendered_once(name, monkeypatch):
    tokenizer = make_tokenizer(FAMILIES[name].template)
    rendered = [render_with_answer_mask(tokenizer, THREE)]  # learns the outlines
    calls, apply = [], tokenizer.apply_chat_template
    monkeypatch.setattr(
        tokenizer, "apply_chat_template", lambda *a, **k: calls.append(a) or apply(*a, **k)
    )
    rendered.append(render_with_answer_mask(tokenizer, THREE))
    assert len(calls) == 1
    assert rendered[0] == rendered[1]


def test_a_template_that_looks_into_contents_is_rendered_for_each_answer():
    # As Nemotron's: words of the system turn switch what is written before answers.
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' and 'Thinking on' in "
        "messages[0].content and loop.last %}<think>{% endif %}"
        "{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    turns = [system("thinking ON"), *TWO]
    for first in (system("Thinking on"), turns[0]):
        assert Prefixes(byte_level(template), [first, *TWO], thinks=False)._contents is None
    assert Prefixes(byte_level(template), TWO, thinks=False)._contents is not None


def read_row(tmp_path, *turns):
    [row] = read_texts(write(tmp_path, [{"messages": list(turns)}], "jsonl")).rows["messages"]
    return json.loads(row)


@each_family
def test_openai_weights_of_a_file_say_which_answers_are_learnt(name, tmp_path):
    row = read_row(
        tmp_path,
        user("what is two plus three?"),
        assistant("six", weight=0),
        user("why?"),
        assistant("five", weight=1),
        user("so"),
        assistant("two"),
    )
    family = FAMILIES[name]
    texts = [family.lead + answer + family.end for answer in ("five", "two")]
    assert learnt(tokenizer_of(name), row) == texts


def test_weight_zero_on_the_only_answer_is_told_when_the_file_is_read(tmp_path):
    with pytest.raises(InputError, match="every assistant turn has weight 0; expected one with"):
        read_row(tmp_path, user("a"), assistant("b", weight=0))


@pytest.mark.parametrize("weight", [0.5, 2, -1, "1"])
def test_another_weight_than_zero_and_one_is_told_from_the_weight_of_a_row(tmp_path, weight):
    told = r"turn 2 has a `weight` other than 0 and 1; expected 1 .* or 0 .*`sample_weight`"
    with pytest.raises(InputError, match=told):
        read_row(tmp_path, user("a"), assistant("b", weight=weight))


@pytest.mark.bench
@pytest.mark.parametrize("name", ["Llama 3.1", "Qwen3"])
def test_rendering_speed(benchmark, name):
    rows = [THREE] * 1_000
    tokenizer = byte_level(FAMILIES[name].template)
    benchmark(lambda: list(render_rows_with_answer_masks(tokenizer, rows, max_length=2048)))
    benchmark.extra_info |= {"rows": len(rows), "python": sys.version.split()[0]}
