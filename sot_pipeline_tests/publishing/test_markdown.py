"""Values that would be markup are shown as text."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.publishing.markdown import Markdown, escaped, fenced, front_matter


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("q_proj", r"q\_proj"),
        ("a|b", r"a\|b"),
        ("<script>", r"\<script\>"),
        ("![x](http://a)", r"!\[x\](http://a)"),
        ("two\nlines", "twoU+000Alines"),
        ("# head", r"\# head"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("0.05", "0.05"),
        ("\u202egnp.exe", "U+202Egnp.exe"),
        ("`code`", r"\`code\`"),
    ],
)
def test_a_value_is_one_line_of_plain_text(value, shown):
    assert escaped(value) == shown


def test_what_is_markdown_already_stays():
    assert escaped(Markdown("**bold**")) == "**bold**"


@given(st.text())
def test_no_value_ends_a_table_cell_or_a_line(value):
    cell = escaped(value)
    assert len(cell.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(\\\\)*\|", cell)  # no bar with an even number of strokes before


@given(st.text())
def test_no_code_leaves_its_fence(code):
    block = fenced(code).split("\n")
    assert set(block[0]) == {"`"} == set(block[-1])
    assert max(map(len, re.findall("`+", code)), default=0) < len(block[0])


@given(st.dictionaries(st.text(min_size=1), st.text() | st.lists(st.text()) | st.none()))
def test_front_matter_gives_every_value_back(fields):
    text = front_matter(fields)
    head, body, tail = text.partition("---\n")[2].rpartition("---\n")
    assert (body, tail) == ("---\n", "")
    given = {name: value for name, value in fields.items() if value is not None}
    assert (yaml.safe_load(head) or {}) == given
