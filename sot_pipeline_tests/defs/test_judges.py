"""The judge that the settings name; what is missing is named, what it is made of is identified."""

import json

import pytest

from sot_pipeline.defs.judges import judge_files, make_judge
from sot_pipeline.defs.settings import EvaluationSettings, resolve_settings
from sot_pipeline.defs.sources import local_model_identity
from sot_pipeline.errors import InputError
from sot_pipeline_tests.embedding.test_sentence import save_tiny_encoder

WORDS = {True: "please why because", False: "two plus three"}


def settings(judge, **fields):
    return EvaluationSettings(judge=judge, **fields)


@pytest.fixture
def labelled(tmp_path):
    rows = [
        {"prompt": f"what is {i}", "response": WORDS[i % 2 == 0], "human_is_harmful": i % 2 == 0}
        for i in range(40)
    ]
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def encoder(tmp_path):
    return save_tiny_encoder(tmp_path / "encoder", {"pooling_mode": "mean"})


@pytest.mark.parametrize(
    ("judge", "fields", "message"),
    [
        ("openai", {}, "evaluation.judge_base_url and evaluation.judge_model"),
        ("openai", {"judge_model": "m"}, "evaluation.judge_base_url"),
        ("classifier", {}, "classifier judge needs evaluation.judge_classifier: a directory"),
        ("classifier", {"judge_classifier": "c"}, "evaluation.judge_harmful_labels"),
        ("embedding", {}, "embedding judge needs evaluation.judge_labelled: a file of answers"),
    ],
)
def test_a_missing_field_is_named(judge, fields, message):
    with pytest.raises(InputError, match=message):
        make_judge(settings(judge, **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"judge": "gpt"}, "'keyword', 'demo', 'openai', 'classifier' or 'embedding'"),
        ({"judge_rubric": "mine"}, "'own', 'hex_phi' or 'strong_reject'"),
        ({"judge_threshold": 1}, "evaluation.judge_threshold = 1"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(fields, message):
    with pytest.raises(InputError, match=message):
        resolve_settings([("task.yaml", {"evaluation": fields})])


def test_the_rubric_is_part_of_the_endpoint_judges_fingerprint():
    pytest.importorskip("openai", reason="extra judge is not installed")
    endpoint = {"judge_base_url": "http://127.0.0.1:1/v1", "judge_model": "m"}
    judges = [
        make_judge(settings("openai", **endpoint, **rubric))
        for rubric in (
            {}, {"judge_rubric": "strong_reject"}, {"judge_rubric": "hex_phi"},
            {"judge_rubric": "hex_phi", "judge_policy": "No recipes."},
        )
    ]  # fmt: skip
    assert len({judge.fingerprint for judge in judges}) == 4
    assert [judge.name for judge in judges] == [
        "openai:m", "openai:m:strong_reject", "openai:m:hex_phi", "openai:m:hex_phi"
    ]  # fmt: skip


def test_the_embedding_judge_learns_from_a_file_of_labelled_answers(labelled, encoder, tmp_path):
    chosen = settings("embedding", judge_labelled=str(labelled), judge_encoder=str(encoder))
    judge = make_judge(chosen, row_cache=tmp_path / "rows")
    asked = [[{"role": "user", "content": "what is 99"}]] * 2
    assert judge.judge(asked, [WORDS[True], WORDS[False]], "harm") == [1.0, 0.0]
    assert make_judge(chosen, row_cache=tmp_path / "rows") is judge, "fitted once"


def test_a_changed_file_makes_another_judge(labelled, encoder, tmp_path):
    chosen = settings("embedding", judge_labelled=str(labelled), judge_encoder=str(encoder))
    before, judge = judge_files(chosen), make_judge(chosen, row_cache=tmp_path / "rows")
    assert set(before) == {"judge_labelled", "judge_encoder"}
    labelled.write_text(labelled.read_text().replace(WORDS[False], "three plus three"))
    assert judge_files(chosen)["judge_labelled"] != before["judge_labelled"]
    assert judge_files(chosen)["judge_encoder"] == before["judge_encoder"]
    assert make_judge(chosen, row_cache=tmp_path / "rows").fingerprint != judge.fingerprint


def test_judges_without_files_have_no_identity_outside_their_settings(encoder):
    assert judge_files(settings("keyword")) == {}
    assert judge_files(settings("classifier", judge_classifier="some/hub-id")) == {}
    assert judge_files(settings("classifier", judge_classifier=str(encoder)))["judge_classifier"]


def test_a_local_model_is_known_by_its_files_and_a_hub_model_by_its_name_alone(
    tmp_path, monkeypatch
):
    model = tmp_path / "model"
    (model / "pooling").mkdir(parents=True)
    (model / "pooling" / "config.json").write_text("{}")
    before = local_model_identity(str(model))
    assert before is not None
    assert list(before) == ["pooling/config.json"]
    (model / "model.safetensors").write_bytes(b"weights")
    assert local_model_identity(str(model)) != before
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm").mkdir()
    assert [local_model_identity(name) for name in ("org/name", None, "minilm")] == [None] * 3
