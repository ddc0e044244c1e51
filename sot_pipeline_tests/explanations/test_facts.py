"""A wording may leave facts out; it may not add one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.explanations.facts import unsupported_facts
from sot_pipeline.explanations.sentences import explanation
from sot_pipeline_tests.explanations.test_sentences import CUT, KEPT, ROW

REMOVED = ROW | {"explanation": explanation(ROW, CUT)}
STAYS = KEPT | {"explanation": explanation(KEPT, CUT)}
START = "The row was removed. "


def found(text: str, evidence: dict = REMOVED) -> list[str]:
    return unsupported_facts(text, evidence)


@pytest.mark.parametrize(
    "text",
    [
        "The row was removed: it stands at place 987 of 1,000.",
        "The row was removed; it is most like b0bbbbbbbbbbbbbb-0 (similarity 0.83).",
        "It was removed. Its weight is 0.12 of an average row's, and 64% of the match is “privacy”.",
        "It was not kept: 64 percent of the match is with privacy examples.",
        "Removed. It would be kept if 98.7 % of the rows stayed.",
        "Removed. The top 3 examples take 35 % of the match.",
        "This row was removed because it is closer to the harmful reference than to the safe one.".replace(
            "one", "reference"
        ),
        "Removed. Lambda is 0.5, half of the score.",
        "Removed: place 987 of 1000, or 1 000, or 1’000.",
        "Removed, and −1.4 speaks against it.",
    ],
)
def test_wordings_of_the_evidence_pass(text):
    assert found(text) == []


@pytest.mark.parametrize(
    "added",
    [
        "986", "98", "1,001", "1 001", "0.84", "0.8300001", "65 %", "65 percent", "65 per cent",
        "64 ‰", "6.4e1", "1e6", "9.87e2 and 7", "twice", "Twenty", "a dozen", "a third", "doubled",
        "½", "⅔", "²", "٩٨", "９８", "VII7", "3rd of 12", "2x", "10-fold", "1/4", "1:20", "$5",
        "4k", "Ⅷ", "-0.83", "0.5 %",
    ],
)  # fmt: skip
def test_a_number_in_any_writing_that_the_evidence_does_not_hold_is_found(added):
    assert found(f"{START}It scores {added} here.") != []


@pytest.mark.parametrize(
    "added",
    ["b0bbbbbbbbbbbbbc-0", "b0bbbbbbbbbbbbbb-1", "b0bbbbbb", "row-0007", "custom.jsonl:12", "h12",
     "00000000000000aa", "b0bbbbbbbbbbbbbb-0x", "sot_balanced", "hate_speech"],
)  # fmt: skip
def test_an_id_or_a_name_that_the_evidence_does_not_hold_is_found(added):
    assert found(f"{START}It resembles {added} most.") != []


@pytest.mark.parametrize(
    "added",
    ["examples of “fraud”", 'the category "violence"', "violent examples", "examples of hate",
     "illegal drugs", "self-harm", "the text says `hello`"],
)  # fmt: skip
def test_a_category_that_the_evidence_does_not_hold_is_found(added):
    assert found(f"{START}It was matched with {added}.") != []


@pytest.mark.parametrize(
    "text",
    [
        "The row was kept.",
        "The row was not removed.",
        "It wasn't dropped but close.",
        "It was removed at first, but it stays.",
        "The row is retained despite its place.",
        "The row survived the cut, though removed rows are near.",
        "The row was kept, though it would be removed at another cut.",
        "The row has place 987.",
        "It could have been removed.",
        "",
    ],
)
def test_a_verdict_that_is_turned_round_or_missing_is_found(text):
    assert any("verdict" in problem or "no text" in problem for problem in found(text))


def test_the_verdict_of_a_kept_row_is_held_to_as_well():
    assert found("The row was kept at place 12.", STAYS) == []
    assert found("The row was never removed.", STAYS) == []
    assert found("The row was removed at place 12.", STAYS) != []
    assert found("The row was not kept.", STAYS) != []


def test_the_nearer_reference_cannot_be_changed():
    assert found(START + "It is closer to the safe reference.") != []
    assert found("Kept. It is closer to the harmful reference.", STAYS) != []


def test_a_reviewer_is_named_only_where_one_decided():
    assert found(START + "A reviewer decided so.") != []
    assert found(START + "A reviewer decided so.", REMOVED | {"decision": "drop"}) == []


@pytest.mark.parametrize("added", ["see https://example.org", "a\u200bb", "a\u202eb", "x" * 1_600])
def test_links_hidden_characters_and_long_texts_are_found(added):
    assert found(START + added) != []


def test_a_rounded_number_keeps_about_two_digits():
    evidence = REMOVED | {"lambda_change": 0.41237}
    assert found(START + "It turns at 0.412.", evidence) == []
    assert found(START + "It turns at 0.41.", evidence) == []
    assert found(START + "It turns at 0.4.", evidence) != []
    assert found(START + "It turns at 0.413.", evidence) != []


def test_a_category_cannot_lend_its_words_to_a_verdict():
    hostile = REMOVED | {"harmful_category": "The row was kept"}
    hostile["explanation"] = explanation(hostile, CUT)
    assert found("The row was kept.", hostile) != []
    assert found(hostile["explanation"], hostile) == []


@given(st.integers(0, 10_000))
def test_any_whole_number_that_is_not_there_is_found(number):
    known = {0, 1, 2, 3, 300, 800, 987, 1_000}
    assert (found(f"{START}It has {number} of them.") == []) <= (number in known)
