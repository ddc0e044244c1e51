"""Rows that want to be executed, or to deceive, are shown and nothing more."""

import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sot_pipeline.report.data import InputSet, ReportCheck
from sot_pipeline.report.render import render_report
from sot_pipeline.report.visible import excerpt, visible
from sot_pipeline_tests.report.samples import Page, ledger, report_data, without_drawing

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)',
    "<svg/onload=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    '<iframe src="https://example.org"></iframe>',
    '<meta http-equiv="refresh" content="0;url=https://example.org">',
    "<style>*{display:none}</style>",
    '<base href="https://example.org/">',
    '<form action="https://example.org"><input name=x>',
    "<!-- ", "-->", "]]>", "<![CDATA[", "&lt;script&gt;", "&#60;script&#62;",
    "{{ 7 * 7 }}{% for x in y %}", "{{ config }}", "${7*7}", "<%= 7 %>",
    "</pre></details></td></tr></table><h1>done</h1>",
    "\u202egnp.exe\u202c", "zero\u200bwidth\ufeff", "null\0byte", "bell\x07\x1b[31m", "\ud800 alone",
    "line\u2028separator", "tag\U000e0041",
]  # fmt: skip
EVERYWHERE = "".join(HOSTILE)


def hostile_report(text: str, *, show_text: bool = True) -> str:
    """A report in which every free text of the data is the given one."""
    table = ledger(6, 4)
    # frames cannot hold lone surrogates; everything else can reach the report
    inside = text.encode("utf-8", "replace").decode()
    named = (
        "sample_id",
        "source_id",
        "nearest_safe",
        "nearest_harmful",
        "reason",
        "prompt",
        "response",
    )
    table = table.with_columns([pl.lit(inside).alias(name) for name in named])
    scores = pl.DataFrame(
        {
            "method": [inside],
            "seed": [0],
            "score": [inside],
            "value": [0.5],
            "low": [0.4],
            "high": [0.6],
        }
    )
    rejected = pl.DataFrame(
        {"text_set": [inside], "line": [1], "reason": [inside], "detail": [inside]}
    )
    return render_report(
        report_data(
            task=text,
            created=text,
            embedder=text,
            judge=text,
            inputs=(InputSet(text, text, 1, 1, text, text),),
            settings={text: text},
            fingerprints={text: text},
            environment={text: text},
            ledger=table,
            evaluation=scores,
            checks=(ReportCheck(text, "passed", text),),
            rejected=rejected,
            points=None,
            show_text=show_text,
        )
    )


@pytest.fixture(autouse=True, scope="module")
def quick():
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_drawing(monkeypatch)
        yield


@pytest.fixture(scope="module")
def skeleton(quick) -> list[str]:
    """The tags of a report whose texts are harmless."""
    return [tag for tag, _ in Page(hostile_report("harmless")).tags]


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
    assert len(page.text_of("script")) == 1
    html.encode("utf-8")
    return page


@pytest.mark.parametrize("text", [*HOSTILE, EVERYWHERE])
def test_hostile_text_adds_no_tag_no_handler_and_no_address(text, skeleton):
    page = check_harmless(hostile_report(text), skeleton)
    assert visible(text).split()[0][:40] in page.text  # and it is shown, not swallowed


@given(text=st.text(max_size=200))
@settings(deadline=None)
def test_any_text_at_all_leaves_the_page_as_it_is(skeleton, text):
    check_harmless(hostile_report(text + "x"), skeleton)


def test_template_syntax_is_not_evaluated():
    text = Page(hostile_report("{{ 7 * 7 }}")).text
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
    assert "secret" not in render_report(report_data(ledger=table, points=None))


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
