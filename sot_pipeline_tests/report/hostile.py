"""Texts that want to be executed, or to deceive, and a report that has them wherever data can be."""

import numpy as np
import polars as pl

from sot_pipeline.report.data import Coverage, InputSet, ReportCheck, ReportData
from sot_pipeline_tests.report.samples import ledger, points, report_data

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
    "line\u2028separator", "paragraph\u2029separator", "tag\U000e0041",
    "<script>window.owned = 1</script>", "<img src=x onerror='window.owned=1'>",
    '</script><script type="application/json" id="rows">{"rows":0}</script>',
    "<!--<script>", "__proto__", "constructor", "javascript:window.owned=1",
    "<img src=https://example.org/x.png>", "@import url(https://example.org/x.css)",
    "<details open ontoggle=window.owned=1>", "<template><script>window.owned=1</script></template>",
]  # fmt: skip
EVERYWHERE = "".join(HOSTILE)


def hostile_data(
    text: str, *, show_text: bool = True, num_rows: int = 6, draws: bool = False
) -> ReportData:
    """Report data of which every free text is the given one.

    Args:
        draws: With the maps, whose drawing takes a second.
    """
    # frames cannot hold lone surrogates; everything else can reach the report
    inside = text.encode("utf-8", "replace").decode()
    named = (
        "sample_id", "source_id", "file", "category", "harmful_category", "nearest_safe",
        "nearest_harmful", "reason", "explanation", "prompt", "response",
    )  # fmt: skip
    table = ledger(num_rows, num_rows - 2).with_columns(
        *(pl.lit(inside).alias(name) for name in named),
        disagreeing_methods=pl.concat_list(pl.lit(inside)),
    )
    scores = {
        "method": [inside],
        "seed": [0],
        "score": [inside],
        "value": [0.5],
        "low": [0.4],
        "high": [0.6],
    }
    references = {"text_set": ["safe"] * 12 + ["harmful"] * 9, "line": range(21)}
    changes = {
        "change": ["newly_kept"], "text_set": ["custom"], "rank_before": [2], "rank_after": [1], "line": [1],
        "share": [0.5], **{name: [inside] for name in ("sample_id", "source_id", "because", "because_of")},
    }  # fmt: skip
    decisions = {
        name: [inside] for name in ("sample_id", "decision", "reviewer", "note", "decided")
    }
    return report_data(
        task=text,
        created=text,
        embedder=text,
        judge=text,
        inputs=(InputSet(text, text, 1, 1, text, text),),
        settings={text: text},
        fingerprints={text: text},
        environment={text: text},
        ledger=table,
        evaluation=pl.DataFrame(scores),
        checks=(ReportCheck(text, "passed", text),),
        rejected=pl.DataFrame(
            {"text_set": [inside], "line": [1], "reason": [inside], "detail": [inside]}
        ),
        references=pl.DataFrame(references).with_columns(
            pl.lit(inside).alias("sample_id"), pl.lit(inside).alias("category")
        ),
        coverage=Coverage(
            np.ones(num_rows, dtype=bool), np.ones(num_rows), np.ones(num_rows), 0.1, 0.1, 0.05
        ),
        decisions=pl.DataFrame(decisions),
        changes=pl.DataFrame(changes),
        change_summary={"moved": 0.1},
        points=points(num_rows) if draws else None,
        neighbours=points(num_rows) if draws else None,
        show_text=show_text,
    )
