"""Counts that the documents tell, from tables as the store holds them."""

from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from sot_pipeline.defs.data_facts import (
    _categories,
    _decisions,
    _harmful_categories,
    version_of,
    without_folder,
)
from sot_pipeline.defs.store import Artifact, Store
from sot_pipeline.publishing.data_facts import CategoryCount


def stored(**fields: Any) -> Any:
    """What these functions read of an artefact."""
    table = fields.pop("table", None)
    return cast(Any, SimpleNamespace(table=lambda: table, **fields))


def test_rows_are_counted_by_the_category_they_state():
    rows = pl.DataFrame(
        {"sample_id": ["a", "b", "c", "d"], "category": ["tax", "tax", None, "law"]}
    )
    kept = pl.Series(["a", "d"])
    assert _categories(rows, kept) == [
        CategoryCount("none stated", 1, 1),
        CategoryCount("tax", 2, 1),
        CategoryCount("law", 1, 0),
    ]


def test_rows_without_categories_are_not_counted():
    rows = pl.DataFrame({"sample_id": ["a"], "category": pl.Series([None], dtype=pl.String)})
    assert _categories(rows, pl.Series(["a"])) == []
    assert _categories(rows.drop("category"), pl.Series(["a"])) == []


def test_removed_rows_are_counted_by_what_they_resemble():
    table = pl.DataFrame(
        {"kept": [True, False, False, False], "harmful_category": ["x", "y", "y", None]}
    )
    assert _harmful_categories(stored(table=table)) == {"y": 2}
    assert _harmful_categories(stored(table=table.drop("harmful_category"))) == {}
    assert _harmful_categories(None) == {}


def test_only_decisions_that_changed_something_are_told():
    review = {"num_honoured": 3, "num_kept_against_cut": 2, "num_dropped_against_cut": 0}
    assert _decisions(stored(document={"review": review})) == {
        "texts decided about": 3,
        "rows kept against the cut": 2,
    }
    assert _decisions(stored(document={})) == {}


@pytest.mark.parametrize(
    ("name", "shown"),
    [("/home/me/models/bert", "bert"), ("org/bert", "org/bert"), ("base", "base")],
)
def test_a_models_folder_is_not_told(name, shown):
    assert without_folder(name) == shown


def test_of_artefacts_with_one_content_the_tasks_own_is_taken(tmp_path):
    store = Store(tmp_path)
    table = pl.DataFrame({"x": [1]})
    first, second = (
        store.write(
            "a", fingerprint * 32, lambda folder: (Artifact(table), {}), content_versioned=True
        )
        for fingerprint in ("1", "2")
    )
    assert first.data_version == second.data_version
    store.set_current("task", second)
    assert version_of(store, "task", "a", first.data_version) == second
    assert version_of(store, "other", "a", first.data_version) in (first, second)
    assert version_of(store, "task", "a", "unknown") is None
