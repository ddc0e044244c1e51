"""Settings: layers, origins, and errors that say what to do."""

import subprocess
import sys
from dataclasses import dataclass, fields

import pytest

from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.settings import (
    FinetuningSettings,
    Settings,
    environment_layer,
    resolve_settings,
)
from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.defences import registry
from sot_pipeline.finetuning.defences.defence import Defence
from sot_pipeline.finetuning.recipe import Recipe


def test_without_layers_every_value_is_the_default():
    settings, origin = resolve_settings([])
    assert settings == Settings()
    assert set(origin.values()) == {"default"}


def test_later_layers_win_and_are_named_as_the_origin():
    layers = [
        ("file", {"transport": {"lambda_push": 0.2, "tolerance": 0.01}}),
        ("flags", {"transport": {"lambda_push": 0.7}}),
    ]
    settings, origin = resolve_settings(layers)
    assert settings.transport.lambda_push == 0.7
    assert settings.transport.tolerance == 0.01
    assert origin["transport.lambda_push"] == "flags"
    assert origin["transport.tolerance"] == "file"
    assert origin["transport.epsilon"] == "default"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"transprot": {}}, "did you mean 'transport'"),
        ({"transport": {"lamda_push": 0.5}}, "did you mean 'lambda_push'"),
        ({"transport": {"lambda_push": 2}}, "task.yaml: transport.lambda_push = 2"),
        ({"transport": 3}, "expected fields"),
        ({"selection": {"keep_count": 5}}, "either keep_fraction or keep_count"),
        ({"selection": {"keep_fraction": None}}, "either keep_fraction or keep_count"),
        ({"embedding": {"view": "answer"}}, "'auto', 'whole' or 'apart'"),
        ({"selection": {"method": "best"}}, "'top_k' or 'calibrated'"),
        ({"selection": {"max_false_keep_rate": 1}}, "selection.max_false_keep_rate = 1"),
        ({"comparison": {"seeds": []}}, "task.yaml: comparison.seeds = "),
        ({"finetuning": {"num_steps": 5}}, "either num_epochs or num_steps"),
        ({"finetuning": {"normalisation": "mean"}}, "'sample_mean', 'token_mean' or"),
        ({"defence": {"name": "spff"}}, "task.yaml: defence.name = 'spff': .* did you mean 'spf'"),
        ({"defence": {"name": ["spf"]}}, "no defence is called"),
        ({"defence": {"mix_share": 1}}, "defence.mix_share = 1"),
        ({"defence": {"options": {"guard": {}}}}, "no defence is called 'guard'"),
        ({"defence": {"options": {"safe_instr": {"a": 1}}}}, "it reads defence.mix_share"),
        ({"defence": {"options": {"spf": 3}}}, "task.yaml: defence.options.spf = 3"),
        ({"comparison": {"methods": ["sft+spff"]}}, "did you mean 'spf'"),
        ({"comparison": {"methods": ["stf_clean"]}}, "did you mean 'sft_clean'"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_origin_and_a_hint(layer, message):
    with pytest.raises(InputError, match=message):
        resolve_settings([("task.yaml", layer)])


def test_a_calibrated_cut_asks_for_no_number_of_rows():
    chosen = {"method": "calibrated", "keep_fraction": None}
    settings, _ = resolve_settings([("task.yaml", {"selection": chosen})])
    assert settings.selection.method == "calibrated"


def test_environment_variables_are_a_layer():
    environ = {"SOT__TRANSPORT__EPSILON": "0.25", "SOT_HOME": "/elsewhere", "PATH": "/bin"}
    assert environment_layer(environ)[1] == {"transport": {"epsilon": 0.25}}
    with pytest.raises(InputError, match="SOT__BLOCK__FIELD"):
        environment_layer({"SOT__EPSILON": "1"})


def test_a_task_file_round_trips(tmp_path):
    home = Home(tmp_path)
    task = TaskFile(
        custom=tmp_path / "custom.jsonl",
        safe=tmp_path / "safe.jsonl",
        harmful=tmp_path / "harmful.jsonl",
        settings={"selection": {"keep_fraction": 0.5}},
    )
    home.write_task("mine", task)
    assert home.read_task("mine") == task
    assert home.task_names() == ["mine"]
    settings, origin = home.settings("mine")
    assert settings.selection.keep_fraction == 0.5
    assert origin["selection.keep_fraction"].endswith("mine.yaml")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "Capital", ".hidden", "x" * 65, "a b"])
def test_a_task_name_never_becomes_a_path(tmp_path, name):
    with pytest.raises(InputError, match="cannot name a task"):
        Home(tmp_path).task_path(name)


def test_an_unknown_task_names_the_known_ones(tmp_path):
    home = Home(tmp_path)
    home.tasks.mkdir()
    (home.tasks / "alpaca.yaml").write_text("custom: a\nsafe: b\nharmful: c\n")
    with pytest.raises(InputError, match="tasks: alpaca"):
        home.read_task("alpacca")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("custom: [", "not readable as YAML"),
        ("- a list", "holds a list"),
        ("custom: a\nsafe: b\n", "harmful"),
        ("custom: a\nsafe: b\nharmful: c\nextra: d\n", "extra"),
    ],
)
def test_a_broken_task_file_is_named(tmp_path, text, message):
    home = Home(tmp_path)
    home.tasks.mkdir()
    (home.tasks / "broken.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        home.read_task("broken")


def test_home_is_the_environment_variable_or_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOT_HOME", raising=False)
    assert Home().root == tmp_path / "data"
    monkeypatch.setenv("SOT_HOME", str(tmp_path / "elsewhere"))
    assert Home().root == tmp_path / "elsewhere"
    assert Home(tmp_path / "given").root == tmp_path / "given"


@dataclass
class Guard(Defence):
    """For these tests."""

    strength: float = 1.0
    steps: int = 3


@pytest.fixture
def guard(monkeypatch):
    """A defence of the training loop, in the place of one."""
    monkeypatch.setitem(registry.DEFENCES, "spf", Guard)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strenght": 2.0}, "spf has no option 'strenght'; did you mean 'strength'"),
        (
            {"strength": "much"},
            "task.yaml: defence.options = .*strength is 'much'; expected a float",
        ),
        ({"steps": True}, "steps is True; expected a int"),
    ],
)
def test_an_option_that_its_defence_lacks_is_refused(guard, options, message):
    with pytest.raises(InputError, match=message):
        resolve_settings([("task.yaml", {"defence": {"options": {"spf": options}}})])


def test_only_the_settings_of_a_defence_itself_decide_its_trainings(guard):
    def of(name: str, **fields):
        settings, _ = resolve_settings([("flags", {"defence": fields})])
        return settings.defence.of(name)

    assert of("none") == of("none", mix_share=0.5, options={"spf": {"steps": 5}}, refusal="No.")
    assert of("spf") == of("spf", mix_share=0.5, num_demonstrations=3)
    assert of("spf") != of("spf", options={"spf": {"steps": 5}})
    assert of("safe_instr") != of("safe_instr", mix_share=0.5)


def test_the_methods_of_a_comparison_are_kept_once_under_their_plain_names():
    methods = {"methods": ["sft+none", "sft", "sot+spf"]}
    settings, _ = resolve_settings([("flags", {"comparison": methods})])
    assert settings.comparison.methods == ("sft", "sot+spf")
    assert settings.defences == ["none", "spf"]
    assert str(settings.own_method) == "sot"


def test_training_without_settings_is_training_with_the_default_settings():
    given = FinetuningSettings().model_dump(exclude={"weighted"})
    assert Recipe(**given) == Recipe()
    assert {field.name for field in fields(Recipe)} == given.keys()


def test_settings_without_options_of_what_trains_need_no_torch():
    code = (
        "import sys; from sot_pipeline.defs.settings import resolve_settings; "
        "resolve_settings([('f', {'defence': {'name': 'spf'}, "
        "'comparison': {'methods': ['sot+spf', 'seal']}, "
        "'rivals': {'options': {'dsir': {'smoothing': 1}, 'seal': {}}}})]); "
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
