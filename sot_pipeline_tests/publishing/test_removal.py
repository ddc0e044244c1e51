"""Why rows left, as card, summary and Croissant say it."""

import json

import pytest

from sot_pipeline.publishing.croissant import croissant
from sot_pipeline.publishing.dataset_card import dataset_card
from sot_pipeline.publishing.removal import limit_of_the_cut, why_removed
from sot_pipeline.publishing.training_content import training_content
from sot_pipeline_tests.publishing.data_samples import changed


def facts(dropped: int = 0, kept: int = 0, rate: float | None = None):
    """100 readable rows of which 20 are removed."""
    return changed(
        num_read=100, num_rejected=0, num_kept=80, num_removed=20, num_dropped_by_reviewers=dropped,
        num_kept_by_reviewers=kept, max_false_keep_rate=rate, decisions={},
    )  # fmt: skip


DOCUMENTS = (
    dataset_card,
    training_content,
    lambda given: json.loads(croissant(given))["description"],
)


def test_a_share_that_was_set_says_nothing_of_resemblance():
    assert why_removed(facts()) == (
        "20 rows were ranked lowest between the safe and the harmful reference; the share of 20 % "
        "was set beforehand, so that a clean set would lose as many."
    )
    assert "a clean set would lose as many" in limit_of_the_cut(facts())


def test_reviewers_rows_are_counted_apart_from_the_cuts():
    said = why_removed(facts(dropped=3, kept=1))
    assert said.startswith("17 rows were ranked lowest")
    assert "the share of 18 %" in said  # 17 and the one that reviewers kept
    assert "Reviewers removed 3 rows that the cut would have kept." in said
    assert "Reviewers kept 1 row that the cut would have removed." in said


def test_what_reviewers_alone_removed_is_not_the_cuts():
    assert why_removed(facts(dropped=20)).startswith("The cut removed no row. Reviewers removed 20")


def test_a_calibrated_cut_speaks_of_resemblance_and_its_stated_risk():
    said = why_removed(facts(rate=0.05))
    assert "20 rows resemble the harmful reference more than the safe one" in said
    assert "at most 5 % are expected to stay" in said
    assert "harm unlike it can stay" in limit_of_the_cut(facts(rate=0.05))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_document_says_it(document):
    text = " ".join(document(facts(dropped=3, kept=1)).split())
    assert "17 rows were ranked lowest" in text
    assert "Reviewers removed 3 rows" in text
    assert "resemble" not in text
    assert "20 rows resemble" in " ".join(document(facts(rate=0.05)).split())


def test_the_limits_of_a_card_say_that_a_clean_set_loses_as_many():
    limits = dataset_card(facts()).partition("## Limits")[2]
    assert "a clean set would lose as many" in limits
