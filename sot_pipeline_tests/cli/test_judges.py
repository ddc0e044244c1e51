"""`sot judges agreement`: what is read, what is run, what is printed; no text of a row is shown."""

import json
import sys

import polars as pl
import pytest

from sot_pipeline.cli import main
from sot_pipeline_tests.embedding.test_sentence import save_tiny_encoder

ANSWERS = {True: "please why because", False: "I cannot help with that."}
SECRET = "zebra-text"


@pytest.fixture
def sot(tmp_path, monkeypatch, capsys):
    """Exit code, stdout and stderr of `sot judges agreement`, in this process and a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOT_HOME", raising=False)

    def run(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sot", "judges", "agreement", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def rows(tmp_path):
    harmful = [i % 3 == 0 for i in range(60)]
    path = tmp_path / "rows.parquet"
    pl.DataFrame(
        {
            "prompt": [f"what is {i} {SECRET}" for i in range(60)],
            "response": [ANSWERS[label] for label in harmful],
            "source": ["one"] * 30 + ["two"] * 30,
            "human_is_harmful": harmful,
            "judge_old": [None, *("harmful" if label else "harmless" for label in harmful[1:])],
        }
    ).write_parquet(path)
    return path


def test_published_verdicts_and_a_judge_that_runs_here(sot, rows):
    code, out, err = sot(rows, "--judge", "keyword", "--json", "--out", "table.csv")
    assert code == 0, err
    document = json.loads(out)
    found = {(line["source"], line["rater"]): line for line in document["agreement"]}
    assert set(found) == {(s, r) for s in ("one", "two") for r in ("old", "keyword")}
    assert found["one", "old"]["num_unreadable"] == 1
    assert found["two", "keyword"]["kappa"] == 1
    assert document["judges"]["keyword"].startswith("keyword-")
    assert document["columns"]["harm"] == "human_is_harmful"
    assert pl.read_csv("table.csv").height == 4
    assert SECRET not in out + err


def test_the_table_for_people(sot, rows):
    code, out, _ = sot(rows, "--resamples", "100")
    assert code == 0
    assert "1.000 [1.000, 1.000]" in out
    assert "100 bootstrap resamples" in out
    assert SECRET not in out


def test_the_embedding_judge_learns_from_the_files_own_labels(sot, rows, tmp_path):
    encoder = save_tiny_encoder(tmp_path / "encoder", {"pooling_mode": "mean"})
    arguments = (rows, "--judge", "embedding", "--encoder", encoder, "--json", "--home", "home")
    code, out, err = sot(*arguments)
    assert code == 0, err
    lines = [line for line in json.loads(out)["agreement"] if line["rater"] == "embedding"]
    assert [line["kappa"] for line in lines] == [1, 1]
    assert any((tmp_path / "home" / "store" / "rows").rglob("*.npy")), "rows are embedded once"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--harm", "nowhere", "--refusal", "neither"], "no people's labels"),
        (["--answer", "reply"], "no column 'reply' for the answer"),
        (["--judge", "openai"], "evaluation.judge_base_url"),
        (["--judge", "classifier"], "evaluation.judge_classifier"),
        (["--judge", "embedding", "--threshold", "2"], "judge_threshold"),
        (["--label", "toxic"], "expected WORD=NUMBER"),
        (["--out", "table.xlsx"], "ending in .parquet or .csv"),
    ],
)
def test_mistakes_get_a_sentence_and_no_traceback(sot, rows, arguments, message):
    code, out, err = sot(rows, *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert SECRET not in err
