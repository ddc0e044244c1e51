"""The command line's contract: stdout, exit codes, files, errors."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest

from sot_pipeline.cli.commands import _say_calibrated
from sot_pipeline.publishing.provenance import read_provenance
from sot_pipeline_tests.small_project import write_small_project

SOT = str(Path(sys.executable).with_name("sot"))


def sot(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SOT, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )


def sot_json(*arguments: str | Path, cwd: Path, code: int = 0) -> dict:
    result = sot(*arguments, "--json", cwd=cwd)
    assert result.returncode == code, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> tuple[Path, dict[str, Path]]:
    """A folder in which the small project was purified once."""
    folder = tmp_path_factory.mktemp("project")
    return folder, write_small_project(folder / "texts")


def purify_arguments(files: dict[str, Path]) -> list[str | Path]:
    return [
        "purify", files["custom"], "--safe", files["safe"], "--harmful", files["harmful"],
        "--embedder", files["model"], "--task", "small",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def purified(project) -> dict:
    folder, files = project
    result = sot(*purify_arguments(files), "--out", "out", "--json", cwd=folder)
    assert result.returncode in (0, 3), result.stderr
    return json.loads(result.stdout)


def test_help_lists_the_commands(tmp_path):
    result = sot("--help", cwd=tmp_path)
    assert result.returncode == 0
    for command in ("demo", "purify", "finetune", "evaluate", "score", "status", "doctor",
                    "config", "ui"):  # fmt: skip
        assert command in result.stdout


def test_nothing_heavy_is_imported_before_a_command_needs_it():
    code = (
        "import sys; import sot_pipeline.cli.app, sot_pipeline.cli.commands; "
        "print(*{'torch', 'jax', 'dagster', 'transformers', 'polars', 'duckdb', 'sklearn', "
        "'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "", result.stderr


def test_the_counts_of_a_purification_add_up(purified):
    assert purified["num_read"] == 60
    assert purified["num_kept"] == 48
    assert purified["num_kept"] + purified["num_removed"] + purified["num_rejected"] == 60
    assert purified["transport"]["converged"]


def test_the_harmful_rows_are_removed(project, purified):
    folder, _ = project
    ledger = pl.read_parquet(folder / "out" / "ledger.parquet")
    harmful = ledger.filter(pl.col("source_id").str.starts_with("h"))
    assert harmful.height == 6
    assert not harmful["kept"].any()


def test_kept_rows_are_the_input_byte_for_byte(project, purified):
    folder, files = project
    lines = files["custom"].read_bytes().splitlines(keepends=True)
    ledger = pl.read_parquet(folder / "out" / "ledger.parquet")
    kept = [lines[line - 1] for line in ledger.filter("kept")["line"]]
    assert (folder / "out" / "purified.jsonl").read_bytes() == b"".join(kept)


def test_the_ledger_has_one_line_per_row_with_its_reason(project, purified):
    folder, _ = project
    ledger = pl.read_parquet(folder / "out" / "ledger.parquet")
    assert ledger.columns[:14] == [
        "sample_id", "source_id", "file", "line", "kept", "rank", "log_weight", "sample_weight", "pull",
        "push", "reason", "nearest_safe", "safe_similarity", "nearest_harmful",
    ]  # fmt: skip
    assert ledger.height == 60
    assert sorted(ledger["rank"]) == list(range(1, 61))
    assert ledger["reason"].null_count() == 0
    assert ledger.filter(~pl.col("kept"))["sample_weight"].sum() == 0
    assert ledger.filter("kept")["sample_weight"].mean() == pytest.approx(1)
    # the rank is the order of the log-weights, and the cut takes the lowest
    ordered = ledger.sort("rank")
    assert ordered["log_weight"].is_sorted(descending=True)
    assert ordered["kept"].to_list() == [True] * 48 + [False] * 12


def test_the_manifest_holds_the_hash_of_every_file(project, purified):
    import hashlib

    folder, files = project
    manifest = read_provenance((folder / "out" / "provenance.json").read_bytes())
    for name, (_, digest) in manifest.sizes_and_hashes.items():
        assert hashlib.sha256((folder / "out" / name).read_bytes()).hexdigest() == digest
    assert set(manifest.sizes_and_hashes) == {
        "purified.jsonl", "ledger.parquet", "rejected.jsonl", "report.html", "README.md",
        "croissant.json", "TRAINING_CONTENT.md",
    }  # fmt: skip
    custom = manifest.predicate.build_definition.resolved_dependencies[0]
    assert custom.digest.sha256 == hashlib.sha256(files["custom"].read_bytes()).hexdigest()


def test_what_was_written_is_verified(project, purified):
    folder, _ = project
    result = sot("verify", "out", "--inputs", "--store", cwd=folder)
    assert result.returncode == 0, result.stdout


def test_a_folder_with_other_files_is_refused_before_any_work(project, purified, tmp_path):
    folder, files = project
    (tmp_path / "README.md").write_text("mine")
    result = sot(*purify_arguments(files), "--out", tmp_path, cwd=folder)
    assert result.returncode == 1
    assert "not empty and no earlier export" in result.stderr
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_second_identical_run_computes_nothing(project, purified):
    folder, files = project
    again = sot(*purify_arguments(files), "--json", cwd=folder)
    assert {asset["cache"] for asset in json.loads(again.stdout)["assets"]} == {"hit"}


def test_changing_keep_redoes_the_cut_and_what_follows_it(project, purified):
    folder, files = project
    result = sot(*purify_arguments(files), "--keep", "0.5", "--json", cwd=folder)
    document = json.loads(result.stdout)
    assert document["num_kept"] == 30
    computed = {asset["asset"] for asset in document["assets"] if asset["cache"] == "miss"}
    assert computed == {
        "selected_samples", "removed_samples", "explanations", "purified_export",
        "purification_report", "purification_changes",
    }  # fmt: skip
    # and back again: the earlier cut is still in the store, compared with the one in between
    back = json.loads(sot(*purify_arguments(files), "--json", cwd=folder).stdout)
    computed = {asset["asset"] for asset in back["assets"] if asset["cache"] == "miss"}
    assert computed == {"purification_changes", "purification_report"}  # which tells of them


def test_the_catalogue_shows_every_table_by_its_asset_name(project, purified):
    folder, _ = project
    path = folder / "data" / "store" / "pipeline.duckdb"
    with duckdb.connect(str(path), read_only=True) as connection:
        names = {name for (name,) in connection.sql("show tables").fetchall()}
        assert names >= {"custom_texts", "safe_texts", "harmful_texts", "rejected_rows",
                         "sample_weights", "selected_samples", "removed_samples", "explanations"}  # fmt: skip
        count = connection.sql("select count(*) from selected_samples where task = 'small'")
        assert count.fetchall() == [(48,)]


def test_new_rows_are_scored_without_a_solve(project, purified):
    folder, files = project
    scored = sot_json("score", files["custom"], "--task", "small", cwd=folder)
    ledger = pl.read_parquet(folder / "out" / "ledger.parquet")
    rows = pl.DataFrame(scored["rows"])
    # the task's own rows get their own log-weights back
    assert (rows["log_weight"] - ledger["log_weight"]).abs().max() < 1e-3
    assert scored["num_below_the_cut"] == 12


def test_new_rows_of_another_view_are_refused(project, purified, monkeypatch):
    folder, files = project
    monkeypatch.setenv("SOT__EMBEDDING__VIEW", "apart")  # a causal model embeds whole rows
    result = sot("score", files["custom"], "--task", "small", cwd=folder)
    assert result.returncode == 1
    assert "view 'whole'" in result.stderr
    assert "purify the task again" in " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def calibrated(project, purified) -> dict:
    """The same rows as a task of their own, cut at a stated rate."""
    folder, files = project
    arguments = [*purify_arguments(files)[:-1], "calibrated", "--max-false-keep-rate", "0.2"]
    result = sot(*arguments, "--out", "found", "--json", cwd=folder)
    assert result.returncode in (0, 3), result.stderr
    return json.loads(result.stdout)


def test_a_calibrated_cut_says_what_it_found_and_what_it_promises(project, calibrated):
    folder, _ = project
    cut = calibrated["selection"]
    assert cut["method"] == "calibrated"
    assert cut["contamination"] == pytest.approx(0.1, abs=0.05)  # 6 of 60
    assert cut["contamination_low"] <= cut["contamination"] <= cut["contamination_high"]
    assert cut["false_keep_rate"] <= cut["max_false_keep_rate"] == 0.2
    assert (cut["num_held_out_harmful"], cut["num_held_out_safe"]) == (8, 10)
    report = (folder / "found" / "report.html").read_text()
    assert "An estimated" in report
    assert "false-keep rate at most 0.2" in report
    assert "is set beforehand" not in report


def test_a_calibrated_cut_and_its_ledger_agree(project, calibrated):
    folder, _ = project
    ledger = pl.read_parquet(folder / "found" / "ledger.parquet").sort("rank")
    assert ledger["log_weight"].is_sorted(descending=True)
    assert ledger["harmful_p_value"].is_sorted()
    assert ledger["kept"].sum() == calibrated["num_kept"]
    kept = ledger["log_weight"] > calibrated["selection"]["threshold"]
    assert ledger["kept"].to_list() == kept.to_list()
    harmful = ledger.filter(pl.col("source_id").str.starts_with("h"))
    assert harmful["kept"].sum() <= 2  # of 6; 1.2 is what the rate allows on average


def test_new_rows_are_judged_by_the_calibrated_cut(project, calibrated):
    folder, files = project
    scored = sot_json("score", files["custom"], "--task", "calibrated", cwd=folder)
    rows = pl.DataFrame(scored["rows"])
    ledger = pl.read_parquet(folder / "found" / "ledger.parquet")
    assert (rows["log_weight"] - ledger["log_weight"]).abs().max() < 1e-3
    assert rows["kept"].to_list() == ledger["kept"].to_list()
    assert rows["harmful_p_value"].to_list() == ledger["harmful_p_value"].to_list()


def test_the_flag_that_was_given_last_chooses_the_method(project, calibrated):
    folder, _ = project
    again = ["purify", "--task", "calibrated", "--json"]
    by_number = json.loads(sot(*again, "--keep", "0.5", cwd=folder).stdout)
    assert by_number["selection"]["method"] == "top_k"
    assert by_number["num_kept"] == 30
    back = json.loads(sot(*again, "--method", "calibrated", cwd=folder).stdout)
    assert back["selection"] == calibrated["selection"]
    cache = {asset["asset"]: asset["cache"] for asset in back["assets"]}
    assert cache["calibration"] == "hit", "the solve is still in the store"


def test_finetune_and_evaluate_give_an_adapter_and_scores(project, purified):
    folder, files = project
    tuned = sot(
        "finetune", "small", "--base-model", files["model"], "--epochs", "2", "--out", "adapter",
        "--set", "finetuning.batch_size=16", "--json", cwd=folder,
    )  # fmt: skip
    assert tuned.returncode in (0, 3), tuned.stderr
    assert json.loads(tuned.stdout)["num_steps"] == 6
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    measured = sot(
        "evaluate", "small", "--harmful", files["eval_harmful"], "--task-prompts",
        files["eval_task"], "--set", "evaluation.max_new_tokens=5", "--json", cwd=folder,
    )  # fmt: skip
    assert measured.returncode in (0, 3), measured.stderr
    results = json.loads(measured.stdout)["results"]
    assert [entry["method"] for entry in results] == ["base", "sot"]
    assert all(0 <= entry["hms"] <= 1 for entry in results)
    assert all(entry["over_refusal"] is None for entry in results), "no such prompts were given"


def test_a_defence_is_a_flag_of_finetune_and_is_kept_with_the_task(project, purified):
    folder, files = project
    given = ["finetune", "small", "--base-model", files["model"], "--steps", "2", "--packing"]
    tuned = sot(*given, "--defence", "safe_instr", "--json", cwd=folder)
    assert tuned.returncode in (0, 3), tuned.stderr
    document = json.loads(tuned.stdout)
    assert (document["defence"], document["num_steps"]) == ("safe_instr", 2)
    assert document["num_safety_rows"] == 1  # 3 % of the 48 rows
    settings = sot_json("config", "--task", "small", cwd=folder)["settings"]
    assert settings["defence"]["name"] == "safe_instr"
    assert settings["finetuning"]["packing"]
    plain = sot("finetune", "small", "--defence", "none", "--json", cwd=folder)
    assert json.loads(plain.stdout)["num_safety_rows"] == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--defence", "safe_insrt"], "did you mean 'safe_instr'"),
        (["--defence-option", "rank=3"], "no defence is chosen"),
        (["--defence", "spf", "--defence-option", "rank"], "expected OPTION=VALUE"),
        (["--defence-option", "sfp.rank=3"], "no defence is called 'sfp'; did you mean 'spf'"),
        (["--set", "comparison.methods=[sft+spff]"], "did you mean 'spf'"),
    ],
)
def test_a_wrong_defence_never_reaches_the_task_file(project, purified, flags, message):
    folder, _ = project
    path = folder / "data" / "tasks" / "small.yaml"
    before = path.read_text()
    result = sot("finetune", "small", *flags, cwd=folder)
    assert result.returncode == 1
    assert message in result.stderr
    assert path.read_text() == before


def test_status_and_config_speak_json(project, purified):
    folder, _ = project
    status = sot_json("status", cwd=folder)
    assert status["tasks"]["small"]["sample_weights"]["rows"] == 60
    config = sot_json("config", "--task", "small", cwd=folder)
    assert config["settings"]["selection"]["keep_fraction"] == 0.8
    assert config["origin"]["embedding.encoder"].endswith("small.yaml")
    assert json.loads(sot("config", "--schema", cwd=folder).stdout)["title"] == "Settings"


def test_doctor_finds_damage(project, purified):
    folder, _ = project
    assert sot_json("doctor", cwd=folder)["findings"]
    damaged = next((folder / "data" / "store" / "pull_cost").glob("*/array.npy"))
    content = damaged.read_bytes()
    try:
        damaged.write_bytes(content[:-4] + b"\0\0\0\1")
        findings = sot_json("doctor", cwd=folder, code=1)["findings"]
        assert any("content differs" in finding["found"] for finding in findings)
    finally:
        damaged.write_bytes(content)


def test_rejected_rows_are_a_finding_and_listed(project, tmp_path):
    _, files = project
    broken = tmp_path / "broken.jsonl"
    lines = files["custom"].read_text().splitlines()
    lines[4] = '{"prompt": "no answer"}'
    lines[7] = "{not json"
    broken.write_text("\n".join(lines) + "\n")
    arguments = purify_arguments({**files, "custom": broken})
    document = sot_json(*arguments, "--out", "out", cwd=tmp_path, code=3)
    assert document["num_rejected"] == 2
    assert document["num_kept"] + document["num_removed"] == 58
    rejected = [
        json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    ]
    assert [row["line"] for row in rejected] == [5, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["purify", "nowhere.jsonl", "--safe", "s", "--harmful", "h"], "no such file"),
        (["purify", "x.jsonl"], "--safe and --harmful missing"),
        (["purify"], "give a file of rows"),
        (["purify", "--task", "nobody"], "no task 'nobody'"),
        (["score", "x.jsonl", "--task", "nobody"], "no task 'nobody'"),
        (["finetune", "nobody"], "no task 'nobody'"),
        (["config", "--task", "../etc"], "cannot name a task"),
    ],
)
def test_mistakes_get_a_sentence_and_no_traceback(tmp_path, arguments, message):
    result = sot(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_wrong_usage_is_exit_code_2(tmp_path):
    assert sot("purify", "--no-such-flag", cwd=tmp_path).returncode == 2
    assert sot("nonsense", cwd=tmp_path).returncode == 2


def test_flags_of_two_methods_contradict_each_other(project, tmp_path):
    _, files = project
    both = ["--keep", "0.5", "--max-false-keep-rate", "0.1"]
    result = sot(*purify_arguments(files), *both, cwd=tmp_path)
    assert result.returncode == 1
    assert "these belong to different methods" in result.stderr
    assert not (tmp_path / "data" / "tasks" / "small.yaml").exists()


def test_a_wrong_setting_never_reaches_the_task_file(project, tmp_path):
    _, files = project
    result = sot(*purify_arguments(files), "--keep", "1.5", cwd=tmp_path)
    assert result.returncode == 1
    assert "selection.keep_fraction = 1.5" in result.stderr
    assert not (tmp_path / "data" / "tasks" / "small.yaml").exists()


def test_diff_tells_what_an_edit_of_a_reference_did(tmp_path):
    files = write_small_project(tmp_path / "texts")
    assert sot(*purify_arguments(files), cwd=tmp_path).returncode in (0, 3)
    first = sot("diff", cwd=tmp_path)
    assert first.returncode == 1
    assert "nothing to compare yet" in first.stderr
    lines = files["harmful"].read_text().splitlines(keepends=True)
    files["harmful"].write_text("".join(lines[2:]))
    status = sot_json("status", cwd=tmp_path)["tasks"]["small"]
    assert status["harmful_texts"]["because"] == ["its source changed"]
    assert sot("purify", "--task", "small", cwd=tmp_path).returncode in (0, 3)
    found = sot_json("diff", "--out", "changes.csv", cwd=tmp_path)
    assert found["num_harmful_rows_gone"] == 2
    assert found["before"]["back"] == 1
    assert pl.read_csv(tmp_path / "changes.csv").height == len(found["changes"])
    listed = sot_json("diff", "small", "--list", cwd=tmp_path)["versions"]
    assert [version["back"] for version in listed] == [1, 0]
    # the other way round, by name
    names = [version["version"] for version in listed]
    back = sot_json("diff", "small", names[1], names[0], cwd=tmp_path)
    assert back["num_harmful_rows_added"] == 2
    assert back["moved"] == pytest.approx(found["moved"])
    shown = sot("diff", "small", cwd=tmp_path)
    assert "harmful rows +0 -2" in shown.stdout


def test_a_calibrated_cut_tells_what_was_counted_and_what_is_to_be_expected(capsys):
    _say_calibrated(
        {
            "contamination": 0.1, "contamination_low": 0.05, "contamination_high": 0.2,
            "max_false_keep_rate": 0.05, "false_keep_rate": 1 / 21, "num_held_out_harmful": 20,
            "num_held_out_safe": 40, "held_out_safe_kept": 0.95,
        }
    )  # fmt: skip
    said = capsys.readouterr().err
    assert "0 of 20 harmful ones would stay" in said
    assert "at most 4.8% is to be expected" in said
    assert "95.0% of 40 safe ones" in said
