"""The shape of a language model, which decides what it costs: from its configuration where it
lies on this machine, else from a table of published ones. Nothing is downloaded."""

from pathlib import Path
from typing import Any, NamedTuple

from sot_pipeline.errors import InputError


class ModelShape(NamedTuple):
    """A transformer's sizes.

    Attributes:
        num_mlp_matrices: 3 of a gated layer (Llama), 2 of a plain one (BERT).
        is_tied: The output layer is the embedding.
        other_parameters: Beside the language model (a vision tower that is loaded, not run).
        source: Where the sizes are from.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocabulary_size: int
    is_tied: bool
    source: str
    num_mlp_matrices: int = 3
    other_parameters: int = 0

    @property
    def layer_parameters(self) -> int:
        """Of the linear layers of all transformer layers; norms and biases are left out."""
        attention = 2 * self.hidden_size * (self.num_heads + self.num_kv_heads) * self.head_dim
        mlp = self.num_mlp_matrices * self.hidden_size * self.intermediate_size
        return self.num_layers * (attention + mlp)

    @property
    def num_parameters(self) -> int:
        embeddings = self.vocabulary_size * self.hidden_size * (1 if self.is_tied else 2)
        return self.layer_parameters + embeddings + self.other_parameters

    def adapter_parameters(self, rank: int, target_modules: tuple[str, ...]) -> int:
        """Of LoRA on these linear layers: rank x (inputs + outputs) of each."""
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        sizes = {
            "q_proj": self.hidden_size + queries,
            "k_proj": self.hidden_size + keys,
            "v_proj": self.hidden_size + keys,
            "o_proj": self.hidden_size + queries,
            "gate_proj": self.hidden_size + self.intermediate_size,
            "up_proj": self.hidden_size + self.intermediate_size,
            "down_proj": self.hidden_size + self.intermediate_size,
        }
        # a module of another name: as large as the largest
        return (
            self.num_layers
            * rank
            * sum(sizes.get(module, max(sizes.values())) for module in target_modules)
        )


_LLAMA_3_8B = ModelShape(4096, 32, 32, 8, 128, 14336, 128256, False, "")
# Heads and head size of Gemma 3 4B are not in its config.json: transformers' Gemma3TextConfig.
PUBLISHED = {
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_3_8B._replace(
        source="Llama 3 report (2407.21783), Table 3; config.json"
    ),
    "meta-llama/Meta-Llama-3-8B-Instruct": _LLAMA_3_8B._replace(
        source="Llama 3 report (2407.21783), Table 3; config.json"
    ),
    "Qwen/Qwen3-8B": ModelShape(
        4096, 36, 32, 8, 128, 12288, 151936, False, "config.json at b968826"
    ),
    "google/gemma-3-4b-it": ModelShape(
        2560, 34, 8, 4, 256, 10240, 262208, True,
        "config.json at 093f9f3 and transformers' defaults; vision tower counted from its "
        "vision_config",
        other_parameters=417_000_000,
    ),
    "minilm": ModelShape(
        384, 6, 12, 12, 32, 1536, 30522, True, "all-MiniLM-L6-v2's config.json",
        num_mlp_matrices=2,
    ),
    "demo": ModelShape(128, 4, 4, 4, 32, 352, 1356, True, "demo/aligned_model.py"),
}  # fmt: skip


def model_shape(name: str, revision: str | None = None) -> ModelShape:
    """The shape of a model directory, of a hub model whose configuration is in the cache, or of
    one of the table.

    Raises:
        InputError: none of these.
    """
    directory = _local(name, revision)
    if directory is not None:
        return read_shape(directory)
    if name in PUBLISHED:
        return PUBLISHED[name]
    raise InputError(
        f"the size of {name!r} is not known: its config.json is neither on this machine nor in "
        f"the table ({', '.join(PUBLISHED)}). Fetch it with `hf download {name} config.json`, or "
        "give a directory."
    )


def _local(name: str, revision: str | None) -> Path | None:
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def read_shape(directory: Path) -> ModelShape:
    """From a directory's config.json.

    Raises:
        InputError: there is none, or it is of no language model.
    """
    from transformers import AutoConfig

    try:
        whole = AutoConfig.from_pretrained(directory)
        config: Any = whole.get_text_config()
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        return ModelShape(
            hidden_size=config.hidden_size,
            num_layers=config.num_hidden_layers,
            num_heads=heads,
            num_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=head_dim,
            intermediate_size=config.intermediate_size,
            vocabulary_size=config.vocab_size,
            is_tied=bool(config.tie_word_embeddings),
            source=f"{directory}/config.json",
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{directory}/config.json does not describe a language model "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}). "
            "Give a directory that save_pretrained wrote."
        ) from error
