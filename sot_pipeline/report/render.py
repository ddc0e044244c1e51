"""A report as one HTML file that loads nothing."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sot_pipeline.pii import redact
from sot_pipeline.report.categories import category_tables
from sot_pipeline.report.changed import changed_since
from sot_pipeline.report.coverage import coverage_tables
from sot_pipeline.report.data import ReportData
from sot_pipeline.report.numbers import Numbers, numbers_of
from sot_pipeline.report.overview import fit_facts, key_figures
from sot_pipeline.report.pictures import Picture, pictures_of
from sot_pipeline.report.privacy import anonymous, redacted
from sot_pipeline.report.quality import quality_tables
from sot_pipeline.report.row_data import row_data
from sot_pipeline.report.row_tables import borderline_rows, decision_rows, removed_rows
from sot_pipeline.report.tables import rejected_reasons, rejected_rows, score_table
from sot_pipeline.report.verdict import verdict_of
from sot_pipeline.visible import visible

_PAGE = Path(__file__).parent / "page"
STYLES = ("base", "tables", "map", "ledger", "narrow", "print")  # the later ones win
SCRIPTS = ("unpack", "theme", "rows", "details", "map_view", "map_draw", "map_input", "map", "ledger", "ledger_view", "start")  # fmt: skip


def render_report(data: ReportData) -> str:
    """The report as one HTML document (UTF-8), complete without a network.

    Personal data that patterns find in ids, file names, notes and shown texts is replaced by its
    kind. Whatever the rows hold, nothing of them is executed: values are escaped or stand compressed in
    a data block, hidden characters are written out, the script makes text nodes only, and the
    content-security policy allows nothing but the page's own style and script, by hash, and
    images inside the page.
    """
    return _rendered(redacted(data), pictures_of(data, numbers_of(data)))


def render_both(data: ReportData) -> tuple[str, str]:
    """The report, and the same one for strangers: without who reviewed, what they noted and when,
    and without folders of this machine. The figures are drawn once."""
    shown = redacted(data)
    pictures = pictures_of(data, numbers_of(data))
    return _rendered(shown, pictures), _rendered(anonymous(shown), pictures)


def _rendered(data: ReportData, pictures: dict[str, Picture | None]) -> str:
    numbers = numbers_of(data)
    style = _joined(STYLES, "css")
    script = f'"use strict";\n(() => {{\n{_joined(SCRIPTS, "js")}}})();\n'
    known = _content(data, numbers) | {
        "figures": pictures,
        "policy": content_security_policy(style, script),
        "style": Markup(style),  # the project's own files, not data
        "script": Markup(script),
    }
    template = _environment().get_template("report.html.jinja")
    without = template.render(**known, block="", left_out=[])
    room = data.max_bytes - len(without.encode()) - _LEFT_OUT
    found = row_data(data, numbers, room, shown_text=redact)
    # base64 and fixed keys; escaped quotes would be no JSON
    return template.render(**known, block=Markup(found.block), left_out=found.left_out)


_LEFT_OUT = 2_000  # bytes for the sentences on what was left out


def _content(data: ReportData, numbers: Numbers) -> dict[str, Any]:
    evaluation = data.evaluation
    removed_at_cut, kept_at_cut = borderline_rows(data, numbers, redact)
    return {
        "data": data,
        "numbers": numbers,
        "verdict": verdict_of(data, numbers),
        "key_figures": key_figures(data, numbers),
        "fit_facts": fit_facts(data),
        "changed": changed_since(data),
        "decisions": decision_rows(data),
        "scores": None if evaluation is None or evaluation.is_empty() else score_table(evaluation),
        "quality": quality_tables(data),
        "categories": category_tables(data),
        "coverage": coverage_tables(data),
        "removed_at_cut": removed_at_cut,
        "kept_at_cut": kept_at_cut,
        "removed": removed_rows(data, numbers, redact),
        "rejected": rejected_rows(data),
        "rejected_reasons": rejected_reasons(data.rejected) if data.rejected is not None else [],
        "num_rejected": 0 if data.rejected is None else data.rejected.height,
    }


def _joined(names: tuple[str, ...], kind: str) -> str:
    return "".join((_PAGE / f"{name}.{kind}").read_text("utf-8") for name in names)


def content_security_policy(style: str, script: str) -> str:
    """Nothing from outside; inside, exactly this style and this script, which cannot make markup
    out of a string."""
    hashes = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    return (
        "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ).format(*hashes)


def _environment() -> Environment:
    def show(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=show,
        trim_blocks=True,
        lstrip_blocks=True,
    )
