"""Model cards: what they say, and that nothing in them is obeyed."""

import dataclasses
import re
import shlex

import pytest
import yaml
from huggingface_hub import ModelCard

from sot_pipeline.publishing.model_card import (
    CardFacts,
    ScoreFacts,
    TextSetFacts,
    model_card,
    serve_command,
    vllm_rank,
)

FACTS = CardFacts(
    task="alpaca",
    base="meta-llama/Llama-3.1-8B-Instruct",
    base_kind="hub",
    base_revision="0e9e39f249a16976918f6564b8830bc894c89659",
    text_sets=[
        TextSetFacts("custom", "rows.jsonl", 5722, "ab" * 32, "cc-by-4.0", ("/data/rows.jsonl",)),
        TextSetFacts("safe", "safe.jsonl", 1650, "cd" * 32, "not stated"),
        TextSetFacts("harmful", "harmful.jsonl", 1242, "ef" * 32, "mit"),
    ],
    data_fingerprint="1234abcd",
    adapter_version="5678ef01",
    num_rows=4578,
    num_removed=1144,
    effective_sample_size=3321.4,
    weighted=True,
    selection={"method": "top_k"},
    rank=16,
    lora={"rank": "16", "learning rate": "0.0001"},
    further={"safety projection": "yes"},
    training={"num steps": "144"},
    scores=[
        ScoreFacts("harmfulness_score", 0.125, 0.08, 0.17, 0.1, 200, 3),
        ScoreFacts("average", float("nan"), 0.4, 0.5, None, 400, 3),
    ],
    judge="openai (kimi)",
)


def front(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def changed(**fields) -> CardFacts:
    return dataclasses.replace(FACTS, **fields)


def test_the_card_says_what_was_measured_with_intervals_judge_and_numbers():
    card = model_card(FACTS)
    assert "| HmS, harmful answers to harmful prompts ↓ | 0.100 | 0.125 | 0.080 … 0.170 | 200 | 3 |" in card  # fmt: skip
    assert "| Average ↑ | – | – | 0.400 … 0.500 | 400 | 3 |" in card
    assert "Judge: openai (kimi)." in card
    assert "lower is better" in card
    assert "Average is this project's definition" in card


def test_the_card_says_what_the_adapter_was_made_from():
    card = model_card(FACTS)
    for fact in ("1234abcd", "5678ef01", "4,578", "1,144", "3,321.4", "ab" * 32, "cc-by-4.0",
                 "safety projection", "learning rate", "revision 0e9e39f249a1"):  # fmt: skip
        assert fact in card


def test_without_scores_the_card_says_why():
    card = model_card(changed(scores=[], no_scores="it has not been evaluated"))
    assert "Nothing was measured for this adapter: it has not been evaluated." in card
    assert "HmS" not in card


def test_the_hub_reads_the_front_matter():
    card = ModelCard(model_card(FACTS))
    assert card.data.base_model == "meta-llama/Llama-3.1-8B-Instruct"
    assert card.data.base_model_relation == "adapter"
    assert card.data.library_name == "peft"
    assert "model-index" not in card.data.to_dict()  # these scores compare with nobody else's


@pytest.mark.parametrize("kind", ["directory", "demo"])
def test_a_directory_is_no_base_model_on_the_hub(kind):
    card = model_card(changed(base="/models/llama", base_kind=kind, base_revision=None))
    assert "base_model" not in front(card)


def test_a_hub_data_set_is_named_in_the_front_matter():
    location = "hf://datasets/tatsu-lab/alpaca@dce01c9b/data/train.parquet"
    custom = FACTS.text_sets[0]._replace(locations=(location, location))
    card = model_card(changed(text_sets=[custom, *FACTS.text_sets[1:]]))
    assert front(card)["datasets"] == ["tatsu-lab/alpaca"]


@pytest.mark.parametrize(
    ("rank", "allowed"), [(1, 1), (2, 8), (8, 8), (9, 16), (257, 320), (512, 512), (513, None)]
)
def test_vllm_gets_the_next_rank_that_it_takes(rank, allowed):
    assert vllm_rank(rank) == allowed


def test_the_serving_line_can_be_run_as_it_stands():
    facts = changed(base="/models/my llama; rm -rf $HOME", base_kind="directory", rank=20)
    command = serve_command(facts)
    assert command is not None
    words = shlex.split(command)
    assert words[2] == facts.base
    assert words[words.index("--max-lora-rank") + 1] == "32"
    assert words[words.index("--lora-modules") + 1] == "alpaca=."
    assert words[words.index("--revision") + 1] == FACTS.base_revision


def test_a_rank_that_vllm_refuses_has_no_serving_line():
    card = model_card(changed(rank=1024))
    assert "vllm serve" not in card
    assert "rank 1024" in card


def test_a_merged_model_says_what_rounding_did():
    merged = {"dtype": "bfloat16", "largest_difference": 0.0123, "rounding_share": 0.034}
    card = model_card(changed(merged=merged))
    assert front(card)["library_name"] == "transformers"
    assert "rounded once to bfloat16" in card
    assert "3.40%" in card
    assert "vllm serve . --served-model-name alpaca" in card


HOSTILE = "x`|\n---\nlicense: mit\n# <img src=x onerror=alert(1)>\n```\n[a](javascript:b) \u202e"


def test_hostile_names_end_no_block_and_start_none():
    plain, facts = model_card(FACTS), changed(
        base=HOSTILE,
        base_kind="directory",
        text_sets=[text_set._replace(name=HOSTILE, licence=HOSTILE) for text_set in FACTS.text_sets],
        selection={HOSTILE: HOSTILE},
        lora={HOSTILE: HOSTILE, "b": HOSTILE},
        further={HOSTILE: HOSTILE},
        training={HOSTILE: HOSTILE},
        judge=HOSTILE,
        libraries={HOSTILE: HOSTILE},
    )  # fmt: skip
    card = model_card(facts)
    assert front(card) == {k: v for k, v in front(plain).items() if not k.startswith("base_model")}
    text = outside_code(card)
    assert headings(text) == headings(outside_code(plain))
    assert not re.search(r"(?<!\\)<(?!br>)", text)
    assert "](javascript" not in text.replace(r"\](javascript", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    before = [line for line in outside_code(plain).splitlines() if line.startswith("|")]
    assert [bars(row) for row in rows] == [bars(row) for row in before]


def outside_code(card: str) -> str:
    return re.sub(r"^(`{3,})\w*\n.*?^\1$", "", card, flags=re.M | re.S)


def headings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]


def bars(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row))


def test_the_code_of_a_card_is_python_whatever_the_base_is_called():
    card = model_card(changed(base='a"\n```\nimport os', base_kind="directory"))
    code = re.search(r"^(`{3,})python\n(.*?)^\1$", card, flags=re.M | re.S)
    assert code is not None
    compile(code[2], "card", "exec")


def test_the_card_says_where_the_documents_of_its_data_are():
    assert "TRAINING_CONTENT.md" not in model_card(FACTS)
    card = model_card(changed(data_documents=".."))
    assert "`../README.md`" in card
    assert "`../provenance.json`" in card


def test_the_card_tells_intended_use_and_that_personal_data_can_come_back():
    card = model_card(FACTS)
    assert "## Intended use" in card
    assert "can repeat personal data" in card
