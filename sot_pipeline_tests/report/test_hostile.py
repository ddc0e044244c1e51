"""Rows that want to be executed, or to deceive, are shown and nothing more."""

import base64
import gzip
import json
import re
import string
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sot_pipeline.report.render import render_report
from sot_pipeline.visible import excerpt, visible
from sot_pipeline_tests.report.hostile import EVERYWHERE, HOSTILE, hostile_data
from sot_pipeline_tests.report.samples import Page, ledger, report_data, without_drawing

# what stands between the tags of the data block: no "<" to end it, no quote within a string
SAFE_CHARACTERS = set(string.ascii_letters + string.digits + '+/=_"{}[]:,.-')


@pytest.fixture(autouse=True, scope="module")
def quick():
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_drawing(monkeypatch)
        yield


@pytest.fixture(scope="module")
def skeleton(quick) -> list[str]:
    """The tags of a report whose texts are harmless."""
    return [tag for tag, _ in Page(render_report(hostile_data("harmless"))).tags]


def check_block(found: Any) -> None:
    """Keys and types that the page's script knows, numbers, and base64 of gzip."""
    if isinstance(found, dict):
        for key, value in found.items():
            assert re.fullmatch("[a-z_]+", key)
            if key == "data":
                gzip.decompress(base64.b64decode(value, validate=True))
            elif key == "type":
                assert value in {"text", "names", "uint8", "uint16", "uint32", "int16", "float32"}
            else:
                check_block(value)
    else:
        assert found is None or isinstance(found, int | float)


def check_harmless(html: str, skeleton: list[str]) -> Page:
    page = Page(html)
    assert [tag for tag, _ in page.tags] == skeleton
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action", "srcset", "data"):
            if name in attributes:
                assert (attributes[name] or "").startswith(
                    "data:image/png;base64," if tag == "img" else "#"
                )
    assert [attributes.get("type") for attributes in page.all("script")] == [
        "application/json",
        None,
    ]
    block, _ = page.text_of("script")
    assert not set(block) - SAFE_CHARACTERS
    check_block(json.loads(block))
    html.encode("utf-8")
    return page


@pytest.mark.parametrize("text", [*HOSTILE, EVERYWHERE])
def test_hostile_text_adds_no_tag_no_handler_and_no_address(text, skeleton):
    page = check_harmless(render_report(hostile_data(text)), skeleton)
    assert visible(text).split()[0][:40] in page.text  # and it is shown, not swallowed


@given(text=st.text(max_size=200))
@settings(deadline=None)
def test_any_text_at_all_leaves_the_page_as_it_is(skeleton, text):
    check_harmless(render_report(hostile_data(text + "x")), skeleton)


def test_template_syntax_is_not_evaluated():
    text = Page(render_report(hostile_data("{{ 7 * 7 }}"))).text
    assert "{{ 7 * 7 }}" in text
    assert "49" not in text.replace("{{ 7 * 7 }}", "")


def test_a_megabyte_of_text_is_cut_to_an_excerpt():
    long = pl.lit("<b>" * 350_000)
    named = ("source_id", "nearest_safe", "nearest_harmful", "reason", "prompt", "response")
    table = ledger(60, 40).with_columns([long.alias(name) for name in named])
    rejected = pl.select(line=1, reason=long, detail=long)
    html = render_report(report_data(ledger=table, rejected=rejected, show_text=True))
    assert len(html) < 1_000_000
    assert not Page(html).all("b")
    assert "1,049,400 more characters" in html


def test_no_text_of_a_row_without_show_text(skeleton):
    table = ledger(6, 4).with_columns(
        pl.lit("very secret prompt").alias("prompt"), pl.lit("very secret answer").alias("response")
    )
    assert "secret" not in render_report(report_data(ledger=table, points=None, neighbours=None))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand tab", "two\nlines\tand tab"),
        ("windows\r\nline", "windows\nline"),
        ("a\rb", "a⟨U+000D⟩b"),
        ("\u202eabc\u202c", "⟨U+202E⟩abc⟨U+202C⟩"),
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("a\0b", "a⟨U+0000⟩b"),
        ("\ud800", "⟨U+D800⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("Größe 你好 😀 שלום", "Größe 你好 😀 שלום"),
    ],
)
def test_characters_that_hide_or_reorder_are_written_out(text, shown):
    assert visible(text) == shown


@given(st.text())
def test_what_is_visible_stays_visible(text):
    shown = visible(text)
    assert visible(shown) == shown
    assert not re.search("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\0]", shown)


def test_an_excerpt_says_what_it_leaves_out():
    assert excerpt("abc", 3) == "abc"
    assert excerpt("abcdef" * 1000, 3) == "abc … (5,997 more characters)"
