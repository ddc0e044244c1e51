"""Tokenizers and language models of a few kilobytes, made on the spot, for the torch stages."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

WORDS = [
    "be",
    "brief",
    "please",
    "what",
    "is",
    "two",
    "plus",
    "three",
    "five",
    "six",
    "the",
    "sum",
    "and",
    "again",
    "why",
    "because",
    "so",
    "hello",
    "there",
    "user",
    "assistant",
    "system",
    "tool",
    "model",
    "think",
    "answer",
    "start",
    "header",
    "you",
    "are",
    "a",
    "helpful",
    "one",
    "four",
    "seven",
    "eight",
    "nine",
    "ten",
    "zero",
    "of",
    "in",
    "to",
    "how",
    "many",
]

# The wording of real templates, cut down to what decides where a turn begins and ends.
LLAMA3 = """{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>

' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>

' }}{% endif %}"""

QWEN3 = """{%- set ns = namespace(last_query=-1) %}{%- for m in messages %}{%- if m['role'] == 'user' %}{%- set ns.last_query = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}{%- set content = m['content'] %}{%- set reasoning = '' %}
{%- if m['role'] == 'assistant' %}{%- if '</think>' in content %}{%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}{{- '<|im_start|>assistant\\n<think>\\n' + reasoning + '\\n</think>\\n\\n' + content.lstrip('\\n') }}{%- else %}{{- '<|im_start|>assistant\\n' + content }}{%- endif %}{{- '<|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + m['role'] + '\\n' + content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""

# The system turn is written into the last user turn, as Mistral 7B v0.3 does.
MISTRAL = """{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}
{{- bos_token }}{%- for m in turns %}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate user/assistant') }}{%- endif %}
{%- if m['role'] == 'user' %}{%- if loop.last and system is defined %}{{- '[INST] ' + system + '\\n\\n' + m['content'] + '[/INST]' }}{%- else %}{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}
{%- else %}{{- ' ' + m['content'] + eos_token }}{%- endif %}{%- endfor %}"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}{{ '<start_of_turn>' + role + '
' + m['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model
' }}{% endif %}"""

TEMPLATES = {"llama3": LLAMA3, "qwen3": QWEN3, "mistral": MISTRAL, "gemma": GEMMA, "none": None}

CONTROL = [
    "<s>",
    "</s>",
    "<pad>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
]


def make_tokenizer(template: str | None = None, *, split: str = r"\s|\w+|[^\w\s]"):
    """Word-level, with white space kept as tokens, so that decoding gives the text back."""
    pieces = [
        *WORDS,
        " ",
        "\n",
        *".,:;?!'=<>/|_-",
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
    ]
    vocabulary = {piece: i for i, piece in enumerate(["<unk>", *CONTROL, *dict.fromkeys(pieces)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(split), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in CONTROL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = template
    return fast


def make_llama(vocabulary_size: int, *, seed: int = 0, **config) -> LlamaForCausalLM:
    """A random Llama with rotary positions, grouped queries and two layers."""
    torch.manual_seed(seed)
    settings = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,  # far from uniform outputs: greedy answers differ by prompt
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary_size, **(settings | config)))
    return model.eval()


def save_tiny_model(directory: Path, template: str | None = LLAMA3, **config) -> Path:
    """A model directory as `save_pretrained` writes it."""
    tokenizer = make_tokenizer(template)
    make_llama(len(tokenizer), **config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_adapter(base, directory, **config):
    """A LoRA adapter with random, non-zero weights."""
    torch.manual_seed(1)
    lora = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, **config)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(directory)
    return directory
