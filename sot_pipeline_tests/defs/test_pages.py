"""What the UI says of each asset: words, links, groups, columns and where they come from."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import dagster as dg
import pytest

from sot_pipeline.cli.runs import run_job
from sot_pipeline.cli.ui import addresses
from sot_pipeline.definitions import ASSETS, EXPERIMENTS, JOBS, PIPELINE, RIVALS, defs
from sot_pipeline.defs.assets import comparison, safety
from sot_pipeline.defs.columns import COLUMNS
from sot_pipeline.defs.dagster_assets import SOURCE_FILES, _shown
from sot_pipeline.defs.instance import open_instance
from sot_pipeline.defs.pages import GROUPS, MAIN_PATH, PAGES, PAPER, group_address
from sot_pipeline.defs.report_links import newest_report, report_link
from sot_pipeline.defs.rival_asset import SCHEMA as RIVAL_SCHEMA
from sot_pipeline.evaluation.run import SCORES_SCHEMA
from sot_pipeline.selection_quality import SCHEMA as QUALITY_SCHEMA
from sot_pipeline_tests.conftest import PROJECT_ROOT
from sot_pipeline_tests.small_home import SmallProject

BY_NAME = {asset.name: asset for asset in ASSETS}
MAX_EVENT_BYTES = 200_000


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> SmallProject:
    """A purified task, by Dagster, so that events are there."""
    project = SmallProject(tmp_path_factory.mktemp("pages"))
    outcome = run_job(project.home, "small", "purify")
    assert outcome.success, outcome.error
    return project


@pytest.fixture(scope="module")
def graph():
    return defs().resolve_asset_graph()


def events(project: SmallProject) -> dict[str, Any]:
    """The newest materialisation of each asset of a purification."""
    with open_instance(project.home) as instance:
        found = {
            name: instance.get_latest_materialization_event(dg.AssetKey(name))
            for name in JOBS["purify"]
        }
    return {name: e.asset_materialization for name, e in found.items() if e is not None}


# Pages


def test_every_asset_has_a_page_in_plain_words():
    assert set(PAGES) == set(BY_NAME) | set(SOURCE_FILES.values())
    for page in PAGES.values():
        assert 5 <= len(page.plain.split()) <= 50
        assert page.plain.endswith(".")


def test_a_page_says_the_plain_words_first_then_the_exact_ones(graph):
    for name, page in PAGES.items():
        told = graph.get(dg.AssetKey(name)).description
        assert told.startswith(page.plain)
        assert "*Exactly:*" in told


def test_the_section_of_readme_that_a_page_names_exists():
    headings = re.findall(r"^## (.+)$", (PROJECT_ROOT / "README.md").read_text(), re.MULTILINE)
    assert {page.readme for page in PAGES.values()} <= set(headings)


def test_every_asset_links_to_its_group_its_code_and_the_paper(graph):
    for name, page in PAGES.items():
        node = graph.get(dg.AssetKey(name))
        assert group_address(node.group_name) in node.metadata["lineage of its group"].value
        assert ("paper" in node.metadata) == (page.paper is not None)
        if name in BY_NAME:
            (reference,) = node.metadata["dagster/code_references"].code_references
            lines = Path(reference.file_path).read_text().splitlines()
            after = lines[reference.line_number - 1 :]
            assert next(line for line in after if line.startswith("def ")).startswith(
                f"def {name}("
            )
    assert PAPER in (PROJECT_ROOT / "README.md").read_text()


def test_jobs_link_to_the_groups_they_bring_up_to_date():
    definitions = defs()
    for name in JOBS:
        told = definitions.resolve_job_def(name).description or ""
        links = re.findall(r"\[(\w+)\]\((/asset-groups~[^)]*)\)", told)
        assert [group for group, _ in links] == [
            g for g in GROUPS if g in {BY_NAME[a].group for a in JOBS[name]}
        ]
        assert all(group in unquote(address) for group, address in links)


def test_no_job_leaves_out_what_its_assets_read():
    """Dagster asks whether a person is sure where an input is neither made nor in the run."""
    for name, members in JOBS.items():
        read = {upstream for asset in members for upstream in BY_NAME[asset].inputs}
        assert read <= set(members), name


# The lineage


def test_groups_are_few_short_and_in_order_no_arrow_leads_back():
    place = {group: number for number, group in enumerate(GROUPS)}
    assert len(GROUPS) <= 7
    assert all(len(group) <= 12 for group in GROUPS)
    assert {asset.group for asset in ASSETS} == set(GROUPS)
    for asset in ASSETS:
        for name in asset.inputs:
            assert place[BY_NAME[name].group] <= place[asset.group], f"{name} -> {asset.name}"


def test_rivals_and_experiments_share_no_group_with_the_way_to_the_adapter():
    aside = {asset.group for asset in (*RIVALS, *EXPERIMENTS.values())}
    assert aside == {"comparison", "experiments"}
    assert not aside & {BY_NAME[name].group for name, page in PAGES.items()
                        if page.leads and name in BY_NAME}  # fmt: skip


def test_the_main_path_is_connected_from_the_files_to_the_evaluation(graph):
    main = {name for name, page in PAGES.items() if page.leads}
    assert {"custom_file", "sample_weights", "selected_samples", "adapter", "evaluation"} <= main
    for name in main - set(SOURCE_FILES.values()):
        parents = {key.to_user_string() for key in graph.get(dg.AssetKey(name)).parent_keys}
        assert parents & main, f"{name} hangs in the air"
    assert unquote(MAIN_PATH) == '/asset-groups~tag:"path"="main"/'
    for name, page in PAGES.items():
        assert graph.get(dg.AssetKey(name)).tags["path"] == ("main" if page.leads else "side")


# Columns


def test_every_column_comes_from_columns_that_exist_upstream(graph):
    for name, columns in COLUMNS.items():
        ancestors = {k.to_user_string() for k in graph.get_ancestor_asset_keys(dg.AssetKey(name))}
        for column in columns.values():
            for asset, source in column.sources():
                assert source in COLUMNS[asset], f"{name}: no column {asset}.{source}"
                assert asset in ancestors, f"{name} is not made from {asset}"


def test_every_table_of_a_purification_is_described_column_by_column(project):
    for name in JOBS["purify"]:
        manifest = project.current(name).manifest
        if "columns" in manifest:
            assert set(COLUMNS[name]) == set(manifest["columns"]), name
        else:
            assert name not in COLUMNS or name == "calibration", name


def test_tables_that_only_other_jobs_make_are_described_as_their_schemas_say():
    schemas = {
        "compared_selections": comparison.SELECTIONS_SCHEMA,
        "selection_quality": QUALITY_SCHEMA,
        "safety_demonstrations": safety.SCHEMA,
        "harmless_prompts": safety.SCHEMA,
        **{asset.name: RIVAL_SCHEMA for asset in RIVALS},
    }
    for name, schema in schemas.items():
        assert set(COLUMNS[name]) == set(schema), name
    assert set(SCORES_SCHEMA) < set(COLUMNS["evaluation"])
    tables = {name for asset in PIPELINE if (name := asset.name) in COLUMNS}
    assert tables >= set(schemas) | {"adapter", "evaluation", "comparison"}


def test_a_calibrated_cut_is_described_too(project):
    project.write_task("calibrated")
    task = project.home.read_task("calibrated")
    selection = {"method": "calibrated", "max_false_keep_rate": 0.2}
    settings = {**task.settings, "selection": selection}
    project.home.write_task("calibrated", task.model_copy(update={"settings": settings}))
    project.run("calibrated")
    made = project.current("calibration", "calibrated").manifest["columns"]
    assert set(made) == set(COLUMNS["calibration"])


@pytest.mark.slow
def test_every_table_of_a_whole_run_is_described(project):
    project.run(job="purify_and_finetune")
    for name in JOBS["purify_and_finetune"]:
        made = project.current(name).manifest.get("columns")
        assert made is None or set(made) == set(COLUMNS[name]), name


# What a run records


def test_a_run_records_columns_in_order_with_meaning_and_origin(project):
    metadata = events(project)["explanations"].metadata
    columns = metadata["dagster/column_schema"].value.columns
    assert [column.name for column in columns] == list(COLUMNS["explanations"])
    described = {column.name: column.description for column in columns}
    assert described["kept"] == "Whether the row stays (from selected_samples.sample_id)"
    lineage = metadata["dagster/column_lineage"].value.deps_by_column
    (source,) = lineage["kept"]
    assert (source.asset_key.to_user_string(), source.column_name) == (
        "selected_samples",
        "sample_id",
    )
    assert metadata["dagster/row_count"].value == 60


def test_every_event_says_when_it_was_computed_and_because_of_what(project):
    for name, event in events(project).items():
        assert event.metadata["because"].value == "made for the first time", name
        assert isinstance(event.metadata["computed"], dg.TimestampMetadataValue)


def test_events_stay_small(project):
    sizes = {
        name: sum(len(str(getattr(value, "value", ""))) for key, value in event.metadata.items())
        for name, event in events(project).items()
    }
    assert max(sizes.values()) < MAX_EVENT_BYTES, sizes


def test_numbers_are_shown_with_as_many_digits_as_a_person_reads():
    assert _shown(30.499999999945633) == 30.5
    assert _shown("(1.6100481321140725e-05, 1.434511524358445e-05)") == "(1.61e-05, 1.4345e-05)"
    assert _shown("10.5281/zenodo.1234567") == "10.5281/zenodo.1234567"
    assert _shown(True) is True


# Reports


def test_the_page_of_a_report_links_to_it_below_the_ui_s_own_address(project):
    metadata = events(project)["purification_report"].metadata
    stored = project.current("purification_report")
    assert metadata["report"].value == f"[open the report]({report_link(stored)})"
    assert report_link(stored) == f"/sot/report/purification_report/{stored.fingerprint}"
    assert report_link(project.current("explanations")) is None
    assert next(iter(metadata)) == "report", "the link comes first"


def test_sot_ui_names_where_to_look(project):
    told = "\n".join(addresses(project.home, "http://127.0.0.1:3000"))
    for path in (MAIN_PATH, *(group_address(group) for group in GROUPS)):
        assert f"http://127.0.0.1:3000{path}" in told
    assert f"report of small: http://127.0.0.1:3000{newest_report(project.home, 'small')}" in told


# What changes the task comes last


def test_a_changed_reference_is_named_as_the_reason(project):
    project.edit("harmful", lambda rows: rows[:-1])
    run_job(project.home, "small", "purify")
    because = {name: event.metadata["because"].value for name, event in events(project).items()}
    assert because["harmful_texts"] == "its source changed"
    assert because["push_cost"] == "harmful_embeddings changed"
    assert because["custom_embeddings"] == "nothing changed: found in the store"
