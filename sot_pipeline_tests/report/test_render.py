"""render_report: the numbers that went in come out, and nothing else comes in."""

import base64
import hashlib
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.report.data import CutSummary, FitSummary, InputSet, ReportCheck
from sot_pipeline.report.render import render_report
from sot_pipeline_tests.report.samples import (
    METHOD_SCORES,
    Page,
    evaluation,
    ledger,
    report_data,
    without_drawing,
)


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(report_data())


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    if "html" not in request.fixturenames:
        without_drawing(monkeypatch)


def test_the_policy_allows_the_inlined_style_and_script_and_nothing_else(html):
    page = Page(html)
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    hashes = []
    for tag in ("style", "script"):
        text = page.text_of(tag)[-1]  # before the script stands its data
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes.append(f"{tag}-src 'sha256-{digest}'")
    assert policy == "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            *hashes,
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def test_nothing_is_loaded_from_anywhere(html):
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"link", "iframe", "object", "embed", "form", "base", "video", "audio"}
    for tag, attributes in page.tags:
        assert "style" not in attributes
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset"):
                inside = "data:image/png;base64," if tag == "img" else "#"
                assert (value or "").startswith(inside)
    assert not re.findall(r"https?:|@import|url\(", html)


def test_every_link_leads_somewhere_in_the_page(html):
    page = Page(html)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in page.all("a")} <= {f"#{name}" for name in ids}
    named = ("for", "aria-labelledby", "aria-describedby")
    assert {name for _, a in page.tags for k in named for name in (a.get(k) or "").split()} <= set(
        ids
    )


def test_figures_have_sizes_and_say_their_numbers(html):
    images = Page(html).all("img")
    assert len(images) == 2 * 6  # light and dark
    assert all(re.search(r"\d", image["alt"] or "") for image in images)
    assert all(int(image["width"] or 0) > 500 for image in images)
    assert any("40 rows" in (image["alt"] or "") for image in images)


def test_the_verdict_says_what_was_asked_and_found_and_measured(html):
    text = Page(html).text
    assert (
        "Which rows of alpaca draw a fine-tuned model away from the safe reference (12 rows)"
        in text
    )
    assert "10 of 40 rows (25 %) were removed." in text
    assert "Of the removed rows 100 % lie nearer to a harmful reference row" in text
    assert "of the kept rows 0 %." in text
    assert (
        "Harmful answers to harmful prompts: 11 % after training on the purified rows, 41 %" in text
    )
    assert "The intervals of the two do not overlap: purification lowered the harm." in text
    assert "(keep_fraction = 0.75)" in text
    assert "2 input rows could not be read" in text
    assert "All checks passed" in text


def test_the_effective_sample_size_is_that_of_the_weights():
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    table = ledger(4, 3, log_weight=np.log(weights) + 7)  # any constant
    text = Page(render_report(report_data(ledger=table))).text
    assert f"effective sample size is {1 / np.sum(weights**2):.0f} of 4 (83.3 %)" in text


def rows_of(html: str, first: str) -> list[str]:
    """The cells of the first table row that begins with a header cell of this text."""
    row = re.search(rf"<tr[^>]*>\s*<th scope=\"row\">{first}\b.*?</tr>", html, re.DOTALL)
    assert row is not None
    return re.findall(r'<td class="number[^"]*">([\d.–]+)', row[0])


def test_the_results_table_holds_the_means_and_every_seed(html):
    for method, scores in METHOD_SCORES.items():
        shift = 0.0 if method == "base" else 0.01  # the mean of seeds 0, 1, 2
        assert rows_of(html, method) == [f"{value + shift:.3f}" for value in scores.values()]
    text = Page(html).text
    for seed in range(3):
        assert f"{0.4 + 0.01 * seed:.3f}{0.38 + 0.01 * seed:.3f} – {0.42 + 0.01 * seed:.3f}" in text
    assert "0.4100.400 … 0.420" in text  # mean, smallest and largest seed
    assert "HmS lower is better" in text
    assert "mean of 1 − HmS, HpS and, if there is one, accuracy" in text
    assert "exact judge, prompt 12ab" in text
    assert "65 unreadable and counted as missing" in text


def test_the_methods_come_in_reading_order_and_the_best_is_marked(html):
    heads = re.findall(r'<tr[^>]*>\s*<th scope="row">(\w+) <small>', html)
    assert heads[:5] == ["base", "sft_clean", "sft", "random", "sot"]
    best = re.findall(r'<td class="number best">([\d.]+)', html)
    # among sft, random and sot: HmS, HpS, accuracy of sot; over-refusal of sft; average of sot
    assert sorted(best) == sorted(["0.110", "0.720", "0.460", "0.030", "0.697"])


def test_without_evaluation_the_report_says_so():
    page = Page(render_report(report_data(evaluation=None)))
    assert "No model was evaluated for this report" in page.text
    assert "Results after fine-tuning" not in page.text
    assert "HmS" not in page.text


def test_missing_scores_are_dashes():
    frame = evaluation({"base": METHOD_SCORES["base"], "sot": {"harmfulness_score": 0.1}})
    html = render_report(report_data(evaluation=frame))
    assert rows_of(html, "sot") == ["0.100", "–", "–", "–", "–"]


def test_a_null_score_and_an_unknown_score_are_shown_for_what_they_are():
    frame = pl.DataFrame(
        [
            ("sot", 0, "own_score", 0.25, None, None),
            ("sot", 0, "accuracy", None, None, None),
            ("sot", 0, "over_refusal", float("nan"), float("nan"), float("nan")),
        ],
        schema={"method": pl.String, "seed": pl.Int64, "score": pl.String, "value": pl.Float64,
                "low": pl.Float64, "high": pl.Float64},
        orient="row",
    )  # fmt: skip
    html = render_report(report_data(evaluation=frame))
    assert rows_of(html, "sot") == ["–", "–", "0.250"]
    assert "nan" not in Page(html).text.lower()


@pytest.mark.parametrize(
    ("sot", "sft", "sentence"),
    [
        (0.1, 0.4, "purification lowered the harm"),
        (0.4, 0.1, "purification raised the harm"),
        (0.1, 0.13, "this difference may be chance"),
    ],
)
def test_a_difference_is_claimed_only_where_the_intervals_do_not_overlap(sot, sft, sentence):
    frame = evaluation({"sot": {"harmfulness_score": sot}, "sft": {"harmfulness_score": sft}})
    assert sentence in Page(render_report(report_data(evaluation=frame))).text


def test_nothing_removed_nothing_borderline():
    page = Page(render_report(report_data(ledger=ledger(10, 10), rejected=None)))
    assert "All 10 rows were kept" in page.text
    assert "No row was removed." in page.text
    assert "There is no cut" in page.text
    assert "Every input row could be read." in page.text
    assert "search" not in {a.get("id") for _, a in page.tags}


def test_tables_are_capped_and_say_so():
    text = Page(render_report(report_data(ledger=ledger(300, 100), max_rows=50))).text
    assert "Shown are 50 of 200; the ledger below lists them all." in text
    assert "reason of row 299" in text  # the lowest weight comes first
    assert "reason of row 250" in text
    assert "reason of row 249" not in text


def test_borderline_rows_are_those_next_to_the_cut_on_either_side_nearest_first():
    html = render_report(report_data(ledger=ledger(100, 60), num_borderline=5))
    section = html[html.index('id="borderline"') : html.index('id="removed"')]
    below, above = section.split("just above the cut")
    assert re.findall(r"row-(\d+)", below) == ["60", "61", "62", "63", "64"]
    assert re.findall(r"row-(\d+)", above) == ["59", "58", "57", "56", "55"]


@pytest.mark.parametrize("show_text", [True, False])
def test_row_text_is_there_only_if_it_was_asked_for(show_text):
    html = render_report(report_data(show_text=show_text))
    assert ("prompt of row 39" in html) is show_text
    assert ("response of row 29" in html) is show_text  # a borderline row
    assert "prompt of row 3<" not in html  # rows far from the cut never show
    assert "reason of row 39" in html


def test_rejected_rows_are_counted_by_reason_and_listed(html):
    text = Page(html).text
    assert "2 × broken_json (custom)." in text
    assert "Expecting value" in text


def test_doubts_come_first():
    fit = FitSummary(np.array([1.0]), False, 200, 0.1, 0.5)
    checks = (ReportCheck("fit_converged", "failed", "x"), ReportCheck("cover", "warned", "y"))
    text = Page(render_report(report_data(fit=fit, checks=checks))).text
    assert "Do not rely on this result yet" in text
    assert "The weights had not converged after 200 steps" in text
    assert "1 check failed: fit converged. 1 check gave a warning: cover." in text


def test_a_cut_that_was_set_beforehand_is_called_so_and_a_found_one_is_not():
    assert "is set beforehand (keep_fraction = 0.75)" in Page(render_report(report_data())).text
    cut = CutSummary(0.098, 0.082, 0.115, 0.05, 0.012, 621, 825, 0.72)
    text = Page(render_report(report_data(cut=cut))).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "An estimated 9.8 % of all rows (95 % interval 8.2 % to 11.5 %)" in text
    assert "found with those: no more than 6 of 621 would stay" in text
    assert "of rows like them at most 1.2 % is to be expected (5 % was allowed)" in text
    assert "of 825 unseen safe reference rows 72 % would stay" in text
    assert "harm unlike it can pass" in text
    assert "is set beforehand" not in text


def test_uniform_weights_are_called_so():
    table = ledger(40, 30, log_weight=np.zeros(40))
    text = Page(render_report(report_data(ledger=table))).text
    assert "Read the warnings first" in text
    assert "The weights are almost uniform" in text


def test_a_report_without_optional_columns_points_or_checks():
    table = ledger().select("sample_id", "line", "kept", "rank", "log_weight")
    data = report_data(
        ledger=table, points=None, neighbours=None, checks=(), fingerprints={}, settings={}
    )
    page = Page(render_report(data))
    assert "0000000000000027-0" in page.text
    assert "Done, nothing checked" in page.text


def test_frames_that_lack_columns_are_refused_by_name():
    with pytest.raises(InputError, match=r"ledger frame lacks rank"):
        report_data(ledger=ledger().drop("rank"))
    with pytest.raises(InputError, match="no rows"):
        report_data(ledger=ledger(0, 0), points=None, neighbours=None)
    with pytest.raises(InputError, match="evaluation frame lacks score"):
        report_data(evaluation=evaluation(METHOD_SCORES).drop("score"))


def test_a_large_report_stays_small():
    table = ledger(50_000, 40_000)
    html = render_report(replace(report_data(ledger=table), show_text=True))
    assert len(html.encode()) < 4_000_000


def test_the_report_is_the_same_every_time(html):
    assert render_report(report_data()) == html


def test_a_single_score_makes_a_single_panel(html):
    frame = evaluation({"sot": {"harmfulness_score": 0.1}})
    page = Page(render_report(report_data(evaluation=frame)))
    weighed_up = 2  # the figure of harm against usefulness, light and dark, needs two scores
    assert len(page.all("img")) == len(Page(html).all("img")) - weighed_up


def test_evaluation_sets_are_listed():
    data = report_data()
    more = replace(data, inputs=(*data.inputs, InputSet("harmful prompts", "eval.jsonl", 77)))
    assert "harmful prompts" in Page(render_report(more)).text


def defended(own: str = "sot+spf", costs: bool = True) -> str:
    """A report whose methods are trained under defences."""
    values = {
        "base": {"harmfulness_score": 0.02},
        "sft": {"harmfulness_score": 0.9},
        "sft_clean+spf": {"harmfulness_score": 0.01},
        "sft+spf": {"harmfulness_score": 0.5},
        "sot": {"harmfulness_score": 0.3},
        own: {"harmfulness_score": 0.1},
        "sot+refusalguard_reimpl": {"harmfulness_score": 0.2},
    }
    table = evaluation(values, seeds=2)
    if costs:
        trained = pl.col("method") != "base"
        table = table.with_columns(
            seconds=pl.when(trained).then(30.0).otherwise(0.0),
            seconds_per_step=pl.when(trained).then(0.25),
            defence_seconds_per_step=pl.when(trained).then(0.125 * pl.col("seed")),
            peak_memory_bytes=pl.when(trained).then(1.5e9),
        )
    return render_report(report_data(evaluation=table, own_method=own))


def methods_in(html: str, table: str) -> list[str]:
    found = re.search(rf'<table class="{table}">.*?</table>', html, re.DOTALL)
    assert found is not None
    return re.findall(r'<th scope="row">([\w+]+)', found[0])


def test_methods_come_by_selection_and_then_by_defence():
    assert methods_in(defended(), "scores") == [
        "base", "sft_clean+spf", "sft", "sft+spf", "sot", "sot+spf", "sot+refusalguard_reimpl",
    ]  # fmt: skip


def test_a_legend_explains_the_defences_and_calls_a_re_implementation_one():
    text = Page(defended()).text
    assert "+spf: SPFwhat opposes the leading directions" in text
    assert "+refusalguard_reimpl: RefusalGuard (re-implementation)" in text
    assert "these are not the authors' results" in text
    assert "+sbr" not in text
    assert "the purified rows, with RefusalGuard (re-implementation)" in text


def test_the_tasks_own_method_stands_in_the_verdict_the_key_figures_and_the_table():
    html = defended()
    text = Page(html).text
    assert "10.5 % after training on the purified rows with SPF, 90.5 %" in text
    assert "the two together lowered the harm" in text
    assert "HmS, purified0.105all rows 0.905" in text
    (own,) = re.findall(r'<tr class="own">\s*<th scope="row">([\w+]+)', html.split("Each seed")[0])
    assert own == "sot+spf"


def test_methods_that_are_given_the_truth_are_not_the_best_of_the_others():
    html = defended().split("Each seed")[0]
    best = re.findall(r'<th scope="row">([\w+]+)(?:(?!</tr>).)*?class="number best"', html, re.S)
    assert best == ["sot+spf"]


def test_costs_are_means_over_the_seeds_of_what_was_trained():
    html = defended()
    assert methods_in(html, "costs")[0] == "sft_clean+spf"
    row = re.search(r'<th scope="row">sot\+spf</th>(<td class="number">.*?)</tr>', html)
    assert row is not None
    assert re.findall(r">([\d.]+)<", row[1]) == ["30", "0.250", "0.062", "1.50"]
    assert '<table class="costs">' not in defended(costs=False)
