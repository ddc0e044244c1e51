"""Dataset cards: what they say, that the hub and loaders read them."""

import json

import polars as pl
import pytest
import yaml
from huggingface_hub import DatasetCard

from sot_pipeline.publishing.data_facts import DataFile
from sot_pipeline.publishing.dataset_card import (
    OWN_KEY,
    card_fields,
    dataset_card,
    loadable,
    size_category,
)
from sot_pipeline_tests.publishing.data_samples import FACTS, changed, redacted, write_rows


def test_the_card_says_in_the_first_lines_how_many_rows_left_and_why():
    card = dataset_card(FACTS)
    opening = " ".join(card.split("---\n")[2].split())[:600]
    assert "**4 of 7 rows**" in opening
    assert "2 so that a language model which learns" in opening
    assert "1 row was ranked lowest between the safe and the harmful reference" in opening
    assert "Reviewers removed 1 row that the cut would have kept." in opening
    assert "1 because they could not be read" in opening


def test_the_card_tells_categories_decisions_reasons_and_findings():
    card = dataset_card(FACTS)
    for line in ("| fraud | 2 |", "| billing | 4 | 0 | 0.0% |", "| other | 2 | 2 | 100.0% |",
                 "| broken\\_json | 1 |", "by hand: rows removed against the cut 1.", "A check found: the safe anchor"):  # fmt: skip
        assert line in card


def test_personal_data_that_is_still_there_is_a_warning_and_replaced_one_a_fact():
    card = dataset_card(FACTS)
    assert "| e-mail address | 3 | 3 |" in card
    assert "**They are still there**" in card
    assert "byte for byte as they were" in card
    card = dataset_card(redacted())
    assert "| e-mail address | 3 | 0 |" in card
    assert "2 rows differ from the source" in card
    assert "byte for byte" not in card


def test_folders_of_this_machine_are_not_told_but_addresses_are():
    card = dataset_card(FACTS)
    assert "/home/somebody" not in card
    assert "rows.jsonl" in card
    assert "hf://datasets/owner/safe@main/safe.parquet, revision 0e9e39f2" in card


def test_the_hub_reads_licences_size_and_files_from_the_front_matter():
    data = DatasetCard(dataset_card(FACTS)).data.to_dict()
    assert data["license"] == ["cc-by-4.0", "unknown"]
    assert data["size_categories"] == ["n<1K"]
    assert data["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": ["purified.jsonl"]}]}
    ]
    assert "language" not in data
    assert data[OWN_KEY]["num_kept"] == 4


def test_the_files_of_the_default_configuration_hold_the_kept_rows(tmp_path):
    write_rows(tmp_path)
    (tmp_path / "README.md").write_text(dataset_card(FACTS))
    config = DatasetCard.load(tmp_path / "README.md").data.to_dict()["configs"][0]
    (path,) = config["data_files"][0]["path"]
    assert pl.read_ndjson(tmp_path / path).height == 4


def data_file(name: str, num_rows: int, **fields) -> DataFile:
    return FACTS.files[0]._replace(name=name, num_rows=num_rows, **fields)


def test_of_files_of_several_types_the_loader_gets_those_with_most_rows():
    few = data_file("purified/a.csv", 3, file_type="csv")
    many = [data_file(f"purified/{i}.jsonl.gz", 2, file_type="jsonl.gz") for i in range(2)]
    facts = changed(files=[few, *many])
    assert loadable(facts) == many
    assert "read these by themselves: purified/a.csv." in dataset_card(facts)


def test_the_loader_is_told_the_delimiter_and_names_are_no_patterns():
    file = data_file("purified/a[1]*.csv", 4, file_type="csv", reading={"sep": ";"})
    (config,) = card_fields(changed(files=[file]))["configs"]
    assert config["sep"] == ";"
    assert config["data_files"][0]["path"] == ["purified/a[[]1][*].csv"]


@pytest.mark.parametrize(
    ("num", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**8, "100M<n<1B"), (10**9, "n>1B")],
)
def test_sizes_are_those_of_the_hub(num, category):
    assert size_category(num) == category


def test_the_front_matter_is_plain_yaml():
    head = dataset_card(FACTS).split("---\n")[1]
    assert yaml.safe_load(head) == json.loads(json.dumps(card_fields(FACTS)))
