"""The page in a real browser: hostile rows do nothing, and its tools answer.

What can be proven without one stands in `test_hostile.py`: no tag, handler or address comes from
data, and the data block is base64.
"""

import json
import time

import polars as pl
import pytest

from sot_pipeline.report.render import render_report
from sot_pipeline_tests.browser import chromium, open_report, wait_for
from sot_pipeline_tests.report.hostile import HOSTILE, hostile_data
from sot_pipeline_tests.report.large import large_report_data
from sot_pipeline_tests.report.samples import ledger, report_data, without_drawing

# before the page's own: whatever runs or is refused leaves a trace
WATCH = """
window.seen = [];
for (const name of ["alert", "confirm", "prompt", "open", "eval"]) window[name] = () => seen.push(name);
addEventListener("securitypolicyviolation", (event) => seen.push(event.violatedDirective));
addEventListener("error", (event) => seen.push(event.message));
addEventListener("unhandledrejection", (event) => seen.push(String(event.reason)));
"""
OPEN_EVERYTHING = """
for (const block of document.querySelectorAll("details")) block.open = true;
document.querySelector("#ledger-table tbody tr[data-place]")?.click();
const canvas = document.getElementById("map-canvas");
canvas.focus();
canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
const box = canvas.getBoundingClientRect();
for (let x = 5; x < box.width; x += 9) for (let y = 5; y < box.height; y += 9) {
  canvas.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + x, clientY: box.top + y, pointerId: 1}));
}
const query = document.getElementById("query");
query.value = arguments[0];
query.dispatchEvent(new Event("input"));
for (const button of document.querySelectorAll("#ledger-table thead button, .legend button")) button.click();
for (const block of document.querySelectorAll("details")) block.open = true;
dispatchEvent(new Event("beforeprint"));
dispatchEvent(new Event("afterprint"));
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    without_drawing(monkeypatch)


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        driver.execute_cdp_cmd("Network.enable", {})
        yield driver


@pytest.fixture
def sample(browser, tmp_path, quick):
    html = render_report(report_data(ledger=ledger(400, 320)))
    open_report(browser, html, tmp_path)
    return browser


def requests(browser) -> list[str]:
    """Addresses that the page asked for since the last look, but for itself and its own images."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    found = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    return [
        url
        for url in found
        if not url.startswith(("data:", "blob:")) and not url.endswith("report.html")
    ]


def test_hostile_rows_in_every_place_run_nothing_and_load_nothing(browser, tmp_path):
    # one text per row, and all of them at once in every other place
    texts = [text.encode("utf-8", "replace").decode() for text in HOSTILE]
    data = hostile_data("".join(HOSTILE), num_rows=len(texts), draws=True)
    names = ("sample_id", "source_id", "category", "reason", "explanation", "prompt", "response")
    table = data.ledger.with_columns(pl.Series(name, texts) for name in names)
    requests(browser)
    browser.get_log("browser")
    html = render_report(hostile_data("".join(HOSTILE), draws=True))
    for page in (html, render_report(report_data(ledger=table, show_text=True))):
        open_report(browser, page, tmp_path)
        for text in ("<script>", "</script>", "__proto__", "\u202e", "row"):
            browser.execute_script(OPEN_EVERYTHING, text)
            time.sleep(0.15)
        assert browser.execute_script("return seen") == []
        assert browser.execute_script("return window.owned") is None
        assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
        assert browser.execute_script("return document.querySelectorAll('script').length") == 2
        assert not browser.execute_script(
            'return document.querySelectorAll(\'main :is(iframe, form, a[href]:not([href^="#"]), '
            'img:not([src^="data:image/png"]), main script, h1)\').length'
        )
        assert requests(browser) == []
        assert browser.get_log("browser") == []


def test_the_policy_would_stop_what_the_escaping_missed(browser, tmp_path):
    html = render_report(report_data(points=None, neighbours=None))
    broken = html.replace(
        "<main>", "<main><script>window.owned = 1</script><img src=https://x.invalid/>"
    )
    open_report(browser, broken, tmp_path)
    assert browser.execute_script("return window.owned") is None
    assert {"script-src-elem", "img-src"} <= set(browser.execute_script("return seen"))
    refused = (
        "try { document.body.innerHTML = '<b>x</b>'; return false } catch (problem) { return true }"
    )
    assert browser.execute_script(refused)
    browser.get_log("browser")
    requests(browser)


def found_rows(browser) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll('#ledger-table tbody tr[data-place]')].map(row => row.cells[4].textContent)"
    )


def search(browser, text: str, answer: str) -> None:
    browser.execute_script(
        "const box = document.getElementById('query'); box.value = arguments[0];"
        "box.dispatchEvent(new Event('input'))", text,
    )  # fmt: skip
    wait_for(browser, f"return document.getElementById('matches').textContent === {answer!r}")


def test_the_ledger_searches_filters_sorts_and_tells_all_of_a_row(sample):
    search(sample, "row-17", "11 of 400 rows")  # row-17 and row-170 to row-179
    assert set(found_rows(sample)) == {"row-17", *(f"row-17{i}" for i in range(10))}
    search(sample, "reason of row 399", "2 of 400 rows")  # and the row of line 399
    search(sample, "line 400", "1 of 400 rows")
    search(sample, "", "400 of 400 rows")
    choose = "const side = document.getElementById('side'); side.value = arguments[0]; side.dispatchEvent(new Event('change'))"
    for side, count in (("removed", 80), ("kept", 320), ("borderline", 50), ("all", 400)):
        sample.execute_script(choose, side)
        wait_for(
            sample,
            f"return document.getElementById('matches').textContent === '{count} of 400 rows'",
        )
    line = "document.querySelectorAll('#ledger-table thead button')[2].click()"
    sample.execute_script(line)
    assert found_rows(sample)[:2] == ["row-0", "row-1"]
    sample.execute_script(line)
    assert found_rows(sample)[:2] == ["row-399", "row-398"]
    sample.execute_script("document.querySelector('#ledger-table tbody tr[data-place]').click()")
    told = sample.execute_script("return document.getElementById('ledger-detail').innerText")
    assert "reason of row 399" in told
    assert "removed" in told
    assert "400 of 400" in told


def test_only_the_rows_in_view_are_elements(sample):
    assert 10 < len(found_rows(sample)) < 60
    sample.execute_script("document.getElementById('ledger-scroll').scrollTop = 200 * 36")
    wait_for(
        sample,
        "return [...document.querySelectorAll('#ledger-table td')].some(cell => cell.textContent === 'row-199')",
    )


def test_the_map_and_the_ledger_are_reached_and_steered_by_keys(sample):
    from selenium.webdriver.common.keys import Keys

    canvas = sample.find_element("id", "map-canvas")
    canvas.send_keys(Keys.ARROW_RIGHT)
    detail = "return document.getElementById('map-detail').innerText"
    assert "Rank\n321 of 400" in sample.execute_script(detail)  # the first removed row
    canvas.send_keys(Keys.ARROW_LEFT)
    assert "Rank\n320 of 400" in sample.execute_script(detail)
    canvas.send_keys("+", Keys.ESCAPE)
    assert sample.execute_script("return document.getElementById('map-detail').hidden")
    rows = sample.find_element("id", "ledger-scroll")
    rows.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)
    assert "399 of 400" in sample.execute_script(
        "return document.getElementById('ledger-detail').innerText"
    )
    order = "return [...document.querySelectorAll('a, button, input, select, summary, [tabindex]')].every(e => e.tabIndex === 0)"
    assert sample.execute_script(order)


def test_light_and_dark_by_the_system_and_by_the_switch(sample):
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = sample.execute_script(paper)
    sample.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    dark = sample.execute_script(paper)
    assert dark != light
    sample.execute_script("document.getElementById('theme').click()")
    assert sample.execute_script(paper) == light
    shown = "return [...document.querySelectorAll('#weights img')].filter(i => i.offsetWidth).every(i => i.classList.contains('on-light'))"
    assert sample.execute_script(shown)
    sample.execute_script("document.getElementById('theme').click()")
    assert sample.execute_script(paper) == dark
    sample.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_page(browser, tmp_path, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    open_report(browser, render_report(hostile_data("W" * 300, draws=True)), tmp_path)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_100_000_rows_open_and_answer_a_search_quickly(browser, tmp_path):
    opened = open_report(browser, render_report(large_report_data(100_000)), tmp_path)
    time.sleep(3)
    start = time.perf_counter()
    search(browser, "row-09999", "10 of 100,000 rows")
    answered = time.perf_counter() - start
    print(f"\n100,000 rows: opened in {opened:.1f} s, a search answered in {answered:.2f} s")
    assert opened < 30
    assert answered < 2
