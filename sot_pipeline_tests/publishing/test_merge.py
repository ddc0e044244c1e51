"""Base model and adapter as one model."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sot_pipeline.errors import InputError
from sot_pipeline.language_model import load_language_model
from sot_pipeline.publishing.merge import compared, merge_adapter
from sot_pipeline_tests.tiny_models import make_tokenizer, save_adapter, save_tiny_model

CONVERSATION = [{"role": "user", "content": "what is two plus three?"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return save_adapter(base, tmp_path_factory.mktemp("models") / "adapter", r=4)


def in_dtype(base, folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(base).to(dtype)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def logits(model):
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        return model(input_ids=ids).logits


def test_the_merged_model_is_base_plus_adapter(base, adapter, tmp_path):
    result = merge_adapter(base, adapter, tmp_path / "merged")
    adapted = load_language_model(base, adapter=adapter, device="cpu").model
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    alone = AutoModelForCausalLM.from_pretrained(base)
    torch.testing.assert_close(logits(merged), logits(adapted), atol=1e-4, rtol=1e-4)
    assert (logits(alone) - logits(adapted)).abs().max() > 0.1  # the adapter does something
    assert result.dtype == "float32"
    assert result.largest_difference < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]


def test_it_is_a_whole_model_in_safetensors(base, adapter, tmp_path):
    merge_adapter(base, adapter, tmp_path / "merged")
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert not any("lora" in name for name in weights)
    before, after = (AutoTokenizer.from_pretrained(path) for path in (base, tmp_path / "merged"))
    assert after.chat_template == before.chat_template
    rendered = [t.apply_chat_template(CONVERSATION, tokenize=True) for t in (before, after)]
    assert rendered[0] == rendered[1]


def test_the_tokenizer_is_the_one_the_adapter_was_trained_with(base, adapter, tmp_path):
    own = tmp_path / "adapter"
    shutil.copytree(adapter, own)
    make_tokenizer("{% for m in messages %}{{ m['content'] }}{% endfor %}").save_pretrained(own)
    merge_adapter(base, own, tmp_path / "merged")
    template = AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    assert template == "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_is_kept_and_the_sum_is_rounded_once(base, adapter, tmp_path, dtype):
    low = in_dtype(base, tmp_path / "low", dtype)
    result = merge_adapter(low, adapter, tmp_path / "merged")
    assert "torch." + result.dtype == str(dtype)
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == result.dtype
    # by hand: W + (alpha / r) B A in float32, then one rounding
    name = "model.layers.0.self_attn.q_proj"
    lora = load_file(adapter / "adapter_model.safetensors")
    a, b = (lora[f"base_model.model.{name}.lora_{x}.weight"].float() for x in "AB")
    scale = json.loads((adapter / "adapter_config.json").read_text())
    original = load_file(low / "model.safetensors")[f"{name}.weight"].float()
    exact = original + scale["lora_alpha"] / scale["r"] * (b @ a)
    assert torch.equal(weights[f"{name}.weight"], exact.to(dtype))
    assert 0 < result.rounding_share < 0.1


def test_another_dtype_can_be_asked_for(base, adapter, tmp_path):
    low = in_dtype(base, tmp_path / "low", torch.bfloat16)
    result = merge_adapter(low, adapter, tmp_path / "merged", dtype="float32")
    assert result.dtype == "float32"
    assert result.largest_difference < 1e-5


def test_tied_embeddings_stay_tied(tmp_path):
    base = save_tiny_model(tmp_path / "base", tie_word_embeddings=True)
    adapter = save_adapter(base, tmp_path / "adapter", r=2)
    merge_adapter(base, adapter, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.get_output_embeddings().weight is merged.get_input_embeddings().weight


def test_a_quantised_base_is_refused_in_a_sentence(base, adapter, tmp_path):
    quantised = tmp_path / "quantised"
    shutil.copytree(base, quantised)
    config = json.loads((quantised / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (quantised / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"stored quantised .*gptq.*serve the adapter beside it"):
        merge_adapter(quantised, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_another_model_leaves_nothing_behind(adapter, tmp_path):
    other = save_tiny_model(tmp_path / "other", hidden_size=64)
    with pytest.raises(InputError, match="does not fit the base model"):
        merge_adapter(other, adapter, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_without_the_adapter_does_not_pass_for_merged(dtype):
    before = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    adapted = before + 0.01 * torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    with pytest.raises(InputError, match="is not base \\+ adapter"):
        compared(before, adapted, before, dtype)


def test_rounding_that_loses_most_of_the_adapter_is_refused_with_a_remedy():
    before = torch.tensor([[[10.0, 0.0, 0.0, 0.0]]])
    adapted = torch.tensor([[[10.0, 0.01, 0.0, 0.01]]])
    merged = adapted + torch.tensor([[[0.01, 0.0, 0.01, 0.0]]])
    with pytest.raises(InputError, match="merge in float32"):
        compared(before, adapted, merged, torch.bfloat16)


def test_an_adapter_that_changes_nothing_can_be_merged():
    same = torch.ones(1, 2, 3)
    result = compared(same, same, same, torch.bfloat16)
    assert (result.largest_difference, result.rounding_share) == (0, 0)


def test_logits_that_are_no_numbers_are_refused():
    same = torch.ones(1, 2, 3)
    with pytest.raises(InputError, match="is not base"):
        compared(same, same, same * torch.nan, torch.bfloat16)
