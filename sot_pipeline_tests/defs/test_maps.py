"""The maps' coordinates and the coverage as assets, and the report that is made of them."""

import numpy as np
import pytest

from sot_pipeline_tests.report.samples import Page
from sot_pipeline_tests.report.unpacked import data_block, unpacked
from sot_pipeline_tests.small_home import SmallProject


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    small = SmallProject(tmp_path_factory.mktemp("maps"))
    small.run()
    return small


def test_every_row_of_the_three_sets_has_its_place(project):
    table = project.current("embedding_map").table()
    for name in ("custom", "safe", "harmful"):
        ids = project.current(f"{name}_texts").table()["sample_id"]
        assert table.filter(text_set=name)["sample_id"].to_list() == ids.to_list()
    places = table.select("x", "y", "towards_harm", "across").to_numpy()
    assert np.isfinite(places).all()


def test_coverage_holds_the_costs_that_the_transport_saw(project):
    stored = project.current("reference_coverage")
    table = stored.table()
    np.testing.assert_array_equal(
        table["safe_cost"], project.current("pull_cost").array().min(axis=1)
    )
    far = (table["safe_cost"] > stored.document["safe_radius"]) & (
        table["harmful_cost"] > stored.document["harmful_radius"]
    )
    assert table["uncovered"].to_list() == far.to_list()


def test_the_report_draws_both_maps_and_lists_every_row(project):
    html = (project.current("purification_report").directory / "report.html").read_text("utf-8")
    page = Page(html)
    block = data_block(html)
    assert set(block["maps"]) == {"neighbours", "harm"}
    ids = project.current("explanations").table()["sample_id"].to_list()
    assert unpacked(block["columns"]["id"]) == ids
    assert "Do the references reach the rows?" in page.text
    assert "What changed since the last run" not in page.text  # the first one


def test_a_second_run_computes_no_map_again(project):
    assert project.run_only("embedding_map").hit
    assert project.run_only("reference_coverage").hit


def test_a_later_run_tells_what_changed(project):
    project.edit("harmful", lambda rows: rows[:-1])
    project.run()
    html = (project.current("purification_report").directory / "report.html").read_text("utf-8")
    text = Page(html).text
    assert "What changed since the last run" in text
    assert "Harmful rows0 added, 1 gone" in text
