"""The Dagster UI as a new user meets it: each step asserts what it shows, and keeps a picture.

Look, make a task's purification, read its report, change a reference, see what went stale and
why, see the automatic run.
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import yaml

from sot_pipeline.defs.pages import GROUPS, MAIN_PATH, PAGES, group_address
from sot_pipeline_tests.defs.live import Live, append, depends_on, runs, ui
from sot_pipeline_tests.small_home import SmallProject
from sot_pipeline_tests.walkthrough.browser import PATIENCE, Browser, chromium

TASK = "small"
RUN_SECONDS = 300
MAX_PLOT_WIDTH = 400  # pixels that Dagster's dialog has
SENSORS = ("orphaned_runs", "run_failed", "selection_moved", "sot_automation", "source_files",
           "task_files", "nightly_reconcile")  # fmt: skip
DIALOG = "//*[@role='dialog' or contains(@class, 'bp5-dialog') or contains(@class, 'bp4-dialog')]"


def walk(out: Path, work: Path, say: Callable[[str], None] = print) -> list[Path]:
    """Walk through the UI on a fresh home below `work`; the pictures, in order."""
    project = SmallProject(work)
    with ui(project.home) as live:
        address = f"http://127.0.0.1:{live.port}"
        with chromium(address, out) as browser:
            steps = (
                first_page, lineage, group_of_inputs, automation_is_on, job_of_the_task,
                asset_page, checks, report, stale_and_why, automatic_run,
            )  # fmt: skip
            for step in steps:
                say(f"{step.__name__.replace('_', ' ')} ...")
                try:
                    step(browser, live, project)
                except BaseException:
                    browser.picture(f"failed-in-{step.__name__}")
                    raise
            assert browser.requested_hosts() <= {f"127.0.0.1:{live.port}"}
    return sorted(out.glob("*.png"))


def first_page(browser: Browser, live: Live, project: SmallProject) -> None:
    """No dialog, no telemetry, nothing fetched from elsewhere; the log names where to look."""
    browser.open("/")
    browser.shows("Overview", "Lineage", "Automation", "Jobs")
    assert not [e for e in browser.all(DIALOG) if e.is_displayed()]
    assert browser.requested_hosts() == {f"127.0.0.1:{live.port}"}
    config = yaml.safe_load((project.home.dagster / "dagster.yaml").read_text())
    assert config["telemetry"] == {"enabled": False}
    browser.picture("first-page")
    told = live.log.read_text()
    for path in (MAIN_PATH, *(group_address(group) for group in GROUPS)):
        assert browser.address + path in told


def lineage(browser: Browser, live: Live, project: SmallProject) -> None:
    browser.click("//a[contains(@href, '/asset-groups') and contains(., 'Lineage')]")
    browser.shows("Global asset lineage", *GROUPS)
    browser.picture("lineage")
    browser.open(MAIN_PATH)
    browser.shows("Materialize all", "inputs", "transport", "purified", "adapter")
    assert not {"comparison", "experiments"} & set(browser.text().split())
    browser.expand_all_groups()
    browser.shows("custom_texts", "sample_weights", "selected_samples")
    browser.picture("main-path")


def group_of_inputs(browser: Browser, live: Live, project: SmallProject) -> None:
    browser.open(group_address("inputs"))
    browser.shows("custom_file", "custom_texts", "safe_embeddings", "harmful_texts")
    assert "sample_weights" not in browser.text(), "a group's lineage shows no other group"
    browser.picture("group-of-inputs")


def automation_is_on(browser: Browser, live: Live, project: SmallProject) -> None:
    browser.open("/automation")
    browser.shows(*SENSORS)
    for name in SENSORS:
        assert _switch(browser, name).is_selected(), f"{name} is off"
    browser.picture("automation")


def _switch(browser: Browser, name: str):
    """The switch of a sensor or a schedule on the automation page."""
    switch = f"(//a[contains(@href, '/{name}')]/..//input[@type='checkbox'])[last()]"

    def found(_: object):
        return next(iter(browser.all(switch)), None)  # it is hidden behind what it looks like

    return browser.until(found, f"the switch of {name}")


def _turn_automation(browser: Browser, live: Live, status: str) -> None:
    """Click the switch of `sot_automation`; the page shows its new state before it holds."""
    query = """{ sensorOrError(sensorSelector: {repositoryName: "__repository__",
      repositoryLocationName: "sot_pipeline", sensorName: "sot_automation"}) {
      ... on Sensor { sensorState { status } } } }"""
    browser.open("/automation")

    def holds(_: object) -> bool:
        return live.graphql(query)["sensorOrError"]["sensorState"]["status"] == status

    def turned(_: object) -> bool:
        switch = _switch(browser, "sot_automation")
        browser.driver.execute_script("arguments[0].click()", switch)
        try:
            return browser.until(holds, f"sot_automation is {status}", seconds=10)
        except AssertionError:
            return False  # a click on a page that still loads does nothing

    browser.until(turned, f"sot_automation turns {status}")


def job_of_the_task(browser: Browser, live: Live, project: SmallProject) -> None:
    """Materialise the task by clicks, and watch the run."""
    browser.open("/jobs")
    browser.shows("purify", "purify_and_finetune", "experiment_ablation")
    browser.picture("jobs")
    browser.open("/locations/sot_pipeline/jobs/purify")
    browser.shows("Read, embed, weigh and cut", "Auto-materialize on", "Its parts:")
    _click_materialize(browser)
    browser.shows("Launch runs to materialize", "Partition selection")
    browser.click("//*[contains(text(), 'Select a partition')]")
    browser.click(f"//*[normalize-space(text())={TASK!r}]")
    browser.keys("\ue00c")  # escape: closes the list
    browser.shows("1 partition")
    browser.picture("which-task")
    browser.click("//button[contains(., 'Launch 1 run') or contains(., 'Launch backfill')]")
    browser.until(lambda _: runs(live.home), "a run is there")
    (run,) = runs(live.home)
    browser.open(f"/runs/{run.run_id}")
    browser.shows("Started", f"{TASK}")
    browser.picture("run-under-way")
    browser.shows("Success", seconds=RUN_SECONDS)
    browser.until(lambda _: runs(live.home)[0].ended, "the run ends", RUN_SECONDS)
    (run,) = runs(live.home)
    assert (run.status, run.task) == ("SUCCESS", TASK)
    browser.picture("run-done")


def _click_materialize(browser: Browser) -> None:
    """Open the dialog; what is optional and not there yet, Dagster asks about first."""
    ask, launch = "//button[.='Confirm']", "//*[contains(text(), 'Launch runs to materialize')]"

    def opened(_: object) -> bool:
        for button in browser.all("//button[contains(., 'Materialize all')]"):
            if not browser.all(f"{ask} | {launch}"):
                button.click()  # again: a click on a page that still loads does nothing
        for button in browser.all(ask):
            button.click()
        return bool(browser.all(launch))

    browser.until(opened, "the dialog to launch runs")


def asset_page(browser: Browser, live: Live, project: SmallProject) -> None:
    """What it is, how fresh, how many rows, its columns and where they come from, its plots."""
    browser.open("/assets/explanations")
    browser.shows(
        PAGES["explanations"].plain,
        "Latest materialization",
        "Row count",
        "60",
        "One sentence for people",
        "selected_samples.sample_id",
        "Source code",
        "purified.py",
    )
    browser.picture("columns")
    browser.open("/assets/sample_weights")
    browser.shows(PAGES["sample_weights"].plain, "weight_histogram", "because")
    browser.shows("made for the first time", "Eq. 5, 6", "lineage of its group")
    browser.picture("sample-weights")
    browser.click("//tr[contains(., 'weight_histogram')]//*[contains(text(), 'Show Markdown')]")
    image = browser.find("//img[contains(@src, 'data:image/png')]")
    browser.until(
        lambda d: d.execute_script("return arguments[0].complete", image), "the plot is drawn"
    )
    assert 0 < image.size["width"] <= MAX_PLOT_WIDTH
    browser.picture("plot")


def checks(browser: Browser, live: Live, project: SmallProject) -> None:
    browser.open("/assets/sample_weights?view=checks")
    browser.shows("converged", "weights_tell_rows_apart", "blocking", "reached its tolerance")
    browser.picture("checks")


def report(browser: Browser, live: Live, project: SmallProject) -> None:
    """The report opens from its asset's page, complains of nothing, and fetches nothing."""
    browser.open("/assets/purification_report")
    browser.shows(PAGES["purification_report"].plain, "open the report")
    browser.picture("report-asset")
    browser.requested_hosts()
    link = browser.find("//a[normalize-space(.)='open the report']")
    address = link.get_attribute("href")
    assert address is not None
    assert address.startswith(browser.address + "/sot/report/purification_report/")
    browser.driver.get(address)
    heading = browser.find("//h1").text
    assert heading
    assert "60" in browser.text()
    complaints = [e for e in browser.driver.get_log("browser") if e["level"] == "SEVERE"]
    assert not [e for e in complaints if "/sot/report/" in e["message"]], complaints
    assert browser.requested_hosts() <= {f"127.0.0.1:{live.port}"}
    browser.picture("report")


def stale_and_why(browser: Browser, live: Live, project: SmallProject) -> None:
    """With automation off for a moment: a changed reference shows as stale, with the reason."""
    _turn_automation(browser, live, "STOPPED")
    append(project.files["harmful"], 1, 2)
    page = f"/assets/harmful_texts?view=partitions&partition={quote(TASK)}"

    def unsynced(_: object) -> bool:
        browser.open(page)  # an open page does not hear of the observation
        browser.shows("Latest materialization")
        return "Unsynced" in browser.text()

    browser.until(unsynced, "harmful_texts is unsynced", PATIENCE * 2)
    browser.hover("//*[contains(text(), 'Unsynced')]")
    browser.shows("harmful_file")
    browser.picture("stale-and-why")


def automatic_run(browser: Browser, live: Live, project: SmallProject) -> None:
    """On again: one run of exactly what depends on the file, and pages that say why."""
    before = runs(live.home)
    _turn_automation(browser, live, "RUNNING")
    browser.until(lambda _: len(runs(live.home)) > len(before), "a run by itself", RUN_SECONDS)
    browser.open("/runs")
    browser.shows("sot_automation", f"partition: {TASK}")
    browser.picture("automatic-run-under-way")
    browser.until(lambda _: runs(live.home)[-1].ended, "it ends", RUN_SECONDS)
    live.settle()
    (run,) = runs(live.home)[len(before) :]
    assert (run.status, run.task) == ("SUCCESS", TASK)
    assert run.planned == depends_on("harmful_texts")
    assert run.planned >= run.computed >= {"harmful_texts", "push_cost", "sample_weights"}
    browser.open("/runs")
    browser.shows("sot_automation", "Success")
    browser.picture("automatic-run-done")
    browser.open(f"/assets/push_cost?view=partitions&partition={quote(TASK)}")
    browser.shows("because", "harmful_embeddings changed")
    browser.picture("why-it-was-made-again")
    browser.open("/assets/purification_changes")
    browser.shows("num_reference_rows_added", "selection_moved")
    browser.picture("what-changed")
