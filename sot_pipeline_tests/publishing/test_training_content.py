"""The summary for compliance: evidence where there is some, blanks where there is none."""

from sot_pipeline.publishing.training_content import TO_FILL_IN, training_content
from sot_pipeline_tests.publishing.data_samples import FACTS, changed, redacted


def test_it_says_what_it_is_before_anything_else():
    lines = training_content(FACTS).splitlines()
    assert lines[0] == "# Summary of training content: support"
    assert lines[2].startswith("**Evidence, not legal advice.**")


def test_the_sections_are_those_of_the_template():
    summary = training_content(FACTS)
    for part in ("## 1. General information", "## 2. Sources of the data", "## 3. Data processing",
                 "1.1 Provider", "1.3 Modality", "2.1 Data sets read from a public address", "synthetic (2.5)",
                 "3.1 Reservation of rights", "3.2 Removal of illegal"):  # fmt: skip
        assert part in summary


def test_what_nobody_recorded_is_left_to_the_provider():
    summary = training_content(FACTS)
    for label in ("1.1 Provider, contact, authorised representative", "1.2 Model name and version"):
        assert f"| {label} | {TO_FILL_IN} |" in summary


def test_licences_are_counted_for_each_source():
    summary = training_content(FACTS)
    assert "| rows.jsonl | 7 | cc-by-4.0 (4), not stated (2) |" in summary
    assert "| safe | hf://datasets/owner/safe@main/safe.parquet | 30 | apache-2.0 (30) |" in summary
    assert "/home/somebody" not in summary


def test_personal_data_comes_with_the_measure_taken():
    assert "Measure: none. They are still in the files." in training_content(FACTS)
    assert "replaced by its kind in the files; 0 are left" in training_content(redacted())


def test_a_range_of_tokens_is_told_only_where_bytes_prove_it():
    assert "less than 1 billion tokens (4 rows, 80 bytes" in training_content(FACTS)
    large = training_content(changed(num_text_bytes=10**9))
    assert "billion tokens" not in large
    assert f"| 1.3 Size of the training data | {TO_FILL_IN} (4 rows, 1,000,000,000 bytes" in large


def test_it_fits_on_few_pages():
    assert len(training_content(FACTS).split()) < 900
