"""Names, categories and licences that want to be executed, or to deceive, are shown as text."""

import json
import re

import pytest
import yaml
from huggingface_hub import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from sot_pipeline.publishing.croissant import croissant
from sot_pipeline.publishing.data_facts import CategoryCount, Column, DataFacts, PersonalData
from sot_pipeline.publishing.dataset_card import card_fields, dataset_card
from sot_pipeline.publishing.training_content import training_content
from sot_pipeline_tests.publishing.data_samples import FACTS, changed
from sot_pipeline_tests.report.test_hostile import HOSTILE

MARKUP = [
    "[x](javascript:alert(1))", "![x](https://example.org/x.png)", "| a | b |", "a\n\n# head",
    "a\n---\nlicense: mit\n---\n", "```\n", "`x`", "<br>", "&lt;b&gt;", "- item", "1. item", "\\",
    "https://example.org", "**all is well**", "~~kept~~", "*** a", "yes", "null", "{a: 1}", "'", '"',
    "@context", "http://schema.org/", "a: b # c", "!!python/object:os.system", "%YAML 1.1", "=cmd()",
]  # fmt: skip
ALL = [*HOSTILE, *MARKUP]
EVERYWHERE = "".join(ALL)


def hostile(text: str) -> DataFacts:
    """Facts in which every free text is the given one; frames hold no lone surrogates."""
    inside = text.encode("utf-8", "replace").decode() or "x"
    file = FACTS.files[0]._replace(name=inside, columns=(Column(inside, "text"),))
    sources = [
        source._replace(name=inside, location=inside, licences={inside: 1}, licence_from=inside,
                        revision=inside, format=inside)
        for source in FACTS.sources
    ]  # fmt: skip
    return changed(
        task=inside, version=inside, created=inside, data_fingerprint=inside, files=[file],
        sources=sources, encoder=inside, method={inside: inside}, settings={inside: inside},
        rejected_reasons={inside: 1}, categories=[CategoryCount(inside, 1, 1)],
        harmful_categories={inside: 1}, decisions={inside: 1}, findings=[inside],
        libraries={inside: inside}, personal=PersonalData({inside: 1}, 1, False, {inside: 1}),
    )  # fmt: skip


def elements(markdown: str) -> set[tuple[str, str]]:
    """Kinds of all elements with the addresses that they lead to; HTML is an element too."""
    # as GitHub and the hub: tables on, bare addresses become links by themselves on neither
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    found = set()
    for token in tokens:
        for one in [token, *(token.children or ())]:
            found.add((one.type, str(one.attrGet("href") or one.attrGet("src") or "")))
    return found


def body(card: str) -> str:
    return card.split("\n---\n", 1)[1]


PLAIN_CARD = elements(body(dataset_card(hostile("x"))))
PLAIN_SUMMARY = elements(training_content(hostile("x")))


@pytest.mark.parametrize("text", [*ALL, EVERYWHERE])
def test_no_text_adds_an_element_or_a_link_to_the_documents(text):
    assert elements(body(dataset_card(hostile(text)))) == PLAIN_CARD
    assert elements(training_content(hostile(text))) == PLAIN_SUMMARY


@pytest.mark.parametrize("text", [*ALL, EVERYWHERE])
def test_the_front_matter_holds_the_fields_and_nothing_else(text):
    facts = hostile(text)
    card = dataset_card(facts)
    fields = json.loads(json.dumps(card_fields(facts)))
    assert yaml.safe_load(card.removeprefix("---\n").partition("\n---\n")[0]) == fields
    assert DatasetCard(card).data.to_dict() == fields


@pytest.mark.parametrize("text", [*ALL, EVERYWHERE])
def test_croissant_has_the_same_keys_whatever_the_text(text):
    def keys(value):
        if isinstance(value, dict):
            return {name: keys(inner) for name, inner in value.items()}
        return [keys(inner) for inner in value] if isinstance(value, list) else None

    assert keys(json.loads(croissant(hostile(text)))) == keys(json.loads(croissant(hostile("x"))))


@pytest.mark.filterwarnings("ignore:.*is deprecated, use Dataset:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*does not look like a valid URI")
def test_croissants_library_reads_metadata_of_hostile_names():
    import mlcroissant

    for text in ALL:
        facts = changed(task=text, encoder=text, findings=[text],
                        sources=[source._replace(name=text) for source in FACTS.sources])  # fmt: skip
        read = mlcroissant.Dataset(jsonld=json.loads(croissant(facts)))
        assert not read.metadata.ctx.issues.errors


@given(st.text())
@settings(deadline=None)
def test_no_document_shows_hidden_characters_or_more_lines(text):
    for write in (dataset_card, training_content):
        document = write(hostile(text))
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\x00-\x08\x1b]", document)
        plain = write(hostile("x"))
        assert document.count("\n| ") == plain.count("\n| ")
