"""The words fit the fate, the evidence, and a reader who knows nothing of the method."""

import re

import pytest

from sot_pipeline.explanations.facts import unsupported_facts
from sot_pipeline.explanations.sentences import Cut, explanation, reason

CUT = Cut(num_rows=1_000, num_above=800, lambda_push=0.5, num_harmful=300, num_safe=200)
ROW = {
    "sample_id": "00000000000000aa-0",
    "kept": False,
    "rank": 987,
    "log_weight": -9.0,
    "relative_weight": 0.12,
    "pull": -0.3,
    "push": -1.4,
    "nearest_safe": "a0aaaaaaaaaaaaaa-0",
    "safe_similarity": 0.2,
    "nearest_harmful": "b0bbbbbbbbbbbbbb-0",
    "harmful_similarity": 0.83,
    "harmful_p_value": None,
    "harmful_ids": ["b0bbbbbbbbbbbbbb-0", "b1bbbbbbbbbbbbbb-0", "b2bbbbbbbbbbbbbb-0"],
    "harmful_shares": [0.2, 0.1, 0.05],
    "harmful_similarities": [0.83, 0.8, 0.78],
    "safe_ids": ["a0aaaaaaaaaaaaaa-0", "a1aaaaaaaaaaaaaa-0", "a2aaaaaaaaaaaaaa-0"],
    "safe_shares": [0.02, 0.01, 0.01],
    "safe_similarities": [0.2, 0.15, 0.1],
    "harmful_category": "privacy",
    "harmful_category_share": 0.64,
    "keep_fraction_needed": 0.987,
    "false_keep_rate_needed": None,
    "lambda_change": 0.312,
    "disagreeing_methods": [],
    "far_from_references": False,
    "decision": None,
    "side": "harmful",
    "num_passed": 980,
}
KEPT = ROW | {
    "kept": True, "rank": 12, "pull": 1.1, "push": 0.4, "safe_similarity": 0.9,
    "harmful_similarity": 0.1, "safe_similarities": [0.9, 0.7, 0.6], "keep_fraction_needed": 0.012,
    "lambda_change": None, "side": "safe", "num_passed": 985,
}  # fmt: skip
VARIANTS = {
    "removed": ROW,
    "kept": KEPT,
    "removed, unlike the safe reference": ROW | {"side": "safe"},
    "kept, unlike the harmful reference": KEPT | {"side": "harmful"},
    "removed, neither speaks": ROW | {"side": "neither", "num_passed": 0},
    "kept, neither speaks": KEPT | {"side": "neither", "num_passed": 0},
    "removed, only both together": ROW | {"side": "both", "num_passed": 0},
    "kept, only both together": KEPT | {"side": "both", "num_passed": 0},
    "removed, borderline": ROW | {"rank": 805, "keep_fraction_needed": 0.805},
    "kept, borderline": KEPT | {"rank": 799, "keep_fraction_needed": 0.799},
    "no category": ROW | {"harmful_category": None, "harmful_category_share": None},
    "flat": ROW | {"harmful_shares": [0.004, 0.004, 0.004]},
    "far": ROW | {"far_from_references": True},
    "never": ROW | {"lambda_change": None},
    "methods disagree": ROW | {"disagreeing_methods": ["pull_alone", "nearest_rows"]},
    "kept by a reviewer": ROW | {"kept": True, "decision": "keep"},
    "dropped by a reviewer": KEPT | {"kept": False, "decision": "drop"},
    "a reviewer who agrees": ROW | {"decision": "drop"},
    "two reference rows": ROW | {
        name: ROW[name][:2] for name in ROW if name.startswith("harmful_") and name.endswith("s")
    },
}  # fmt: skip


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.])\s+(?=[A-Z])", text)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_two_to_five_whole_sentences(name):
    row = VARIANTS[name]
    text = explanation(row, CUT)
    assert 2 <= len(sentences(text)) <= 5
    assert all(one[0].isupper() and one.endswith(".") for one in sentences(text))
    assert text.startswith("Kept" if row["kept"] else "Removed")
    assert len(reason(row, CUT)) < 160
    assert reason(row, CUT).startswith("Kept" if row["kept"] else "Removed")


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_says_nothing_that_its_evidence_does_not_hold(name):
    row = VARIANTS[name]
    shared = CUT._asdict() | {"together": sum(row["harmful_shares"])}
    texts = {"explanation": explanation(row, CUT), "reason": reason(row, CUT)}
    assert unsupported_facts(texts["explanation"], row | shared | texts) == []


@pytest.mark.parametrize("name", VARIANTS)
def test_no_variant_speaks_in_the_methods_own_terms(name):
    text = explanation(VARIANTS[name], CUT) + reason(VARIANTS[name], CUT)
    for jargon in ("transport", "potential", "log-weight", "epsilon", "cosine", "marginal", "nats",
                   "Sinkhorn", "pull", "push"):  # fmt: skip
        assert jargon not in text
    assert "lambda" not in text or "counted for" in text


def test_different_fates_have_different_words():
    assert len({explanation(row, CUT) for row in VARIANTS.values()}) == len(VARIANTS)


def test_a_removed_row_is_told_what_speaks_against_it_and_what_would_keep_it():
    text = explanation(ROW, CUT)
    assert text.startswith("Removed: it has place 987 of 1,000")
    likeness = "more like the harmful reference (examples of what a model must not learn)"
    assert f"{likeness} than 980 of the other 999 rows" in text
    assert "b0bbbbbbbbbbbbbb-0 (similarity 0.83" in text
    assert "64 % of the match went to examples of the category “privacy”" in text
    assert "These 3 examples take 35 % of the match with the 300 harmful examples." in text
    assert "It would stay if 98.7 % of the rows stayed" in text
    assert "with the matching left as it is" in text
    assert "counted for 0.312 of the score (lambda) instead of 0.5" in text


def test_a_flat_match_says_that_no_row_stands_out():
    text = explanation(VARIANTS["flat"], CUT)
    assert "No single harmful example stands out: the 3 named take 1.2 % of the match" in text
    assert "spread over 297 others" in text


def test_a_share_that_is_typed_in_as_it_is_told_keeps_the_row():
    # 4,600 of 5,722 is 80.3915... %: told upwards
    cut = CUT._replace(num_rows=5_722, num_above=4_577)
    row = ROW | {"rank": 4_600, "keep_fraction_needed": 4_600 / 5_722}
    share = re.search(r"stay if ([\d.]+) % of the rows", explanation(row, cut))[1]
    assert int(float(share) / 100 * 5_722 + 0.5) >= 4_600


def test_a_calibrated_cut_speaks_of_the_harmful_rows_that_may_slip_through():
    cut = CUT._replace(max_false_keep_rate=0.05)
    text = explanation(ROW | {"harmful_p_value": 0.41, "false_keep_rate_needed": 0.43}, cut)
    assert "about 41 % of rows known to be harmful would come as high or higher" in text
    assert (
        "It would stay if 43 % of harmful rows were allowed to slip through instead of 5.0 %"
        in text
    )
    never = explanation(ROW | {"harmful_p_value": 0.99}, cut)
    assert "The cut would spare it at no allowed share" in never


def test_no_field_but_ids_and_the_category_reaches_the_words():
    hostile = "IGNORE THIS </p><script>"
    row = ROW | {"prompt": hostile, "response": hostile, "messages": hostile, "source_id": hostile}
    assert explanation(row, CUT) == explanation(ROW, CUT)
    assert reason(row, CUT) == reason(ROW, CUT)


def test_a_decided_row_is_told_what_the_cut_would_have_done():
    kept = explanation(VARIANTS["kept by a reviewer"], CUT)
    assert "Without the decision it would go, and stay only if 98.7 % of the rows stayed" in kept
    dropped = explanation(VARIANTS["dropped by a reviewer"], CUT)
    assert (
        "Without the decision it would stay, and go only if fewer than 1.2 % of the rows stayed"
        in dropped
    )
    for text in (kept, dropped):
        assert "of the match with" not in text  # whether evidence is firm decides nothing
        assert not re.search(r"(?<!decision )it would (stay|go)\b", text, re.I)


def test_a_decided_row_is_told_of_a_calibrated_cut_as_well():
    cut = CUT._replace(max_false_keep_rate=0.05)
    row = ROW | {"kept": True, "decision": "keep", "harmful_p_value": 0.41}
    needs = explanation(row | {"false_keep_rate_needed": 0.43}, cut)
    assert "Without the decision it would go, and stay only if 43 % of harmful rows" in needs
    assert "Without the decision the cut would spare it at no allowed" in explanation(row, cut)


@pytest.mark.parametrize("side", ["neither", "both"])
def test_where_rows_of_both_references_are_named_their_shares_say_whose(side):
    text = explanation(ROW | {"side": side, "num_passed": 0}, CUT)
    assert "The three harmful ones take 35 % of the match with the 300 harmful examples." in text
    one = {name: ROW[name][:1] for name in ROW if name.startswith("harmful_") and name[-1] == "s"}
    text = explanation(ROW | one | {"side": side, "num_passed": 0}, CUT)
    assert "The harmful one takes 20 % of the match" in text


def test_a_reason_is_true_of_a_row_that_is_nearer_to_a_safe_row_than_to_a_harmful_one():
    row = ROW | {"safe_similarity": 0.84, "harmful_similarity": 0.71}
    assert "more like the harmful reference than 980 other rows" in reason(row, CUT)
    assert "close to" not in reason(row, CUT)


@pytest.mark.parametrize(("change", "told"), [(0.31249, "0.312"), (0.68751, "0.688"), (0.3, "0.3")])
def test_lambda_is_told_on_the_far_side_of_where_the_row_changes_sides(change, told):
    text = explanation(ROW | {"lambda_change": change}, CUT)
    assert f"counted for {told} of the score (lambda) instead of 0.5" in text
