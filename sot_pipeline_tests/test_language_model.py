"""Loading: what is trusted, what is refused in which words, what the fingerprint covers."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from sot_pipeline.errors import InputError
from sot_pipeline.language_model import load_language_model, render_text
from sot_pipeline_tests.tiny_models import (
    GEMMA,
    LLAMA3,
    make_tokenizer,
    save_adapter,
    save_tiny_model,
)

# peft 0.21 still asks for the old name; harmless until transformers 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def copy(base, tmp_path):
    return shutil.copytree(base, tmp_path / "copy")


def logits(loaded):
    ids = torch.tensor([[1, 20, 21, 22]])
    return loaded.model(input_ids=ids).logits


def test_a_directory_is_loaded_frozen_in_full_precision_on_the_cpu(base):
    loaded = load_language_model(base, device="cpu")
    assert not loaded.model.training
    assert all(not p.requires_grad for p in loaded.model.parameters())
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert loaded.revision is None
    assert render_text(loaded.tokenizer, HELLO) == render_text(make_tokenizer(LLAMA3), HELLO)


def test_the_dtype_can_be_chosen(base):
    loaded = load_language_model(base, device="cpu", dtype="bfloat16")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


def test_the_fingerprint_does_not_depend_on_the_place(base, copy):
    assert load_language_model(copy).fingerprint == load_language_model(str(base)).fingerprint


def test_the_fingerprint_follows_one_weight(base, copy):
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert load_language_model(copy).fingerprint != load_language_model(base).fingerprint


def test_the_fingerprint_follows_the_chat_template(base, copy):
    make_tokenizer(GEMMA).save_pretrained(copy)
    assert load_language_model(copy).fingerprint != load_language_model(base).fingerprint


def test_an_adapter_changes_the_answers_and_the_fingerprint(base, tmp_path):
    adapter = save_adapter(base, tmp_path / "adapter")
    plain, adapted = load_language_model(base), load_language_model(base, adapter=adapter)
    assert (logits(plain) - logits(adapted)).abs().max() > 1e-3
    assert adapted.fingerprint.startswith(plain.fingerprint + "+")
    assert all(not p.requires_grad for p in adapted.model.parameters())


def test_an_adapter_brings_the_tokenizer_it_was_trained_with(base, tmp_path):
    adapter = save_adapter(base, tmp_path / "adapter")
    make_tokenizer(GEMMA).save_pretrained(adapter)
    assert "start_of_turn" in render_text(
        load_language_model(base, adapter=adapter).tokenizer, HELLO
    )


def test_an_adapter_of_another_model_is_refused(base, tmp_path):
    wide = save_tiny_model(tmp_path / "wide", hidden_size=64)
    adapter = save_adapter(wide, tmp_path / "adapter")
    with pytest.raises(InputError, match="does not fit the base model"):
        load_language_model(base, adapter=adapter)


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_an_adapter_that_lacks_tensors_is_refused(base, tmp_path):
    adapter = save_adapter(base, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match="1 tensors do not match"):
        load_language_model(base, adapter=adapter)


def test_pickled_weights_are_refused(copy, tmp_path):
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        load_language_model(copy)


def test_a_pickled_adapter_is_refused(base, tmp_path):
    adapter = save_adapter(base, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(weights, adapter / "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter_model\.safetensors"):
        load_language_model(base, adapter=adapter)


def test_code_that_comes_with_a_model_is_not_run(copy, tmp_path):
    ran = tmp_path / "ran"
    config = json.loads((copy / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"},
    }
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "mine.py").write_text(f"open({str(ran)!r}, 'w')")
    with pytest.raises(InputError, match="code"):
        load_language_model(copy)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "a/b/c"])
def test_a_missing_directory_is_named(name):
    with pytest.raises(InputError, match=f"no model directory {name}"):
        load_language_model(name)


def test_a_directory_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        load_language_model(tmp_path)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"dtype": "int8"}, 'Unknown dtype "int8"'),
        ({"device": "abacus"}, 'Unknown device "abacus"'),
    ],
)
def test_unknown_settings_are_named(base, options, found):
    with pytest.raises(InputError, match=found):
        load_language_model(base, **options)


def test_without_a_network_the_remedy_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"not in the local cache.*local directory.*minilm"):
        load_language_model("some-org/some-model")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("RepoNotFound", "neither a directory here nor a model on the Hugging Face hub"),
        ("GatedRepo", "asks for its licence to be accepted"),
        ("RevisionNotFound", "at revision v9 has no such revision"),
        ("EntryNotFound", r"has no config\.json"),
    ],
)
def test_what_the_hub_answers_is_told_with_a_remedy(code, found, monkeypatch, tmp_path):
    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(403 if code == "GatedRepo" else 404)
            self.send_header("X-Error-Code", code)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(InputError, match=found):
            load_language_model("some-org/some-model", revision="v9")
        server.shutdown()
