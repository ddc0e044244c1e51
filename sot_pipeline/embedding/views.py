"""What of a row becomes its vector: the whole row, or what was asked and the answer apart.

One vector of a whole row blends the topic, which a risky prompt and its refusal share, with what
the answer does about it. Embedded apart, the answer counts for itself, and more.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from sot_pipeline.embedding.embed import EmbeddingResult, embed
from sot_pipeline.embedding.encoder import Encoder, View, encoder_fingerprint
from sot_pipeline.errors import InputError
from sot_pipeline.rendering import Conversation

# Chosen on real rows of three tasks, all-MiniLM-L6-v2 vectors, among the shares 1/2 to 3/4 and the
# echoes 0, 1/2 and 1: sot_pipeline_tests/benchmarks/README.md, "What was tried"
ANSWER_SHARE = 2 / 3  # of the cosine
ECHO = 0.5  # share of the answer's component along its prompt that is taken away


def view_for(encoder: Encoder, chosen: Literal["auto"] | View) -> View:
    """The view that a setting means for an encoder.

    "auto" is "apart" for sentence encoders. A causal model's last token has read the prompt and
    the answer, in their order; for it "auto" is "whole", "apart" was not measured.
    """
    return encoder.view if chosen == "auto" else chosen


def embed_rows(
    conversations: Sequence[Conversation],
    encoder: Encoder,
    *,
    view: View,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EmbeddingResult:
    """One vector per conversation, in their order, as a view sees it.

    Args:
        conversations, encoder, cache, progress: As for `embed`. A part that occurs in many rows
            is embedded once; tokens are counted over both parts together.
        view: "whole": `embed`, vectors as the encoder gives them, float32 [rows, dimension].
            "apart": `compose` of the `parts`, [rows, 2 dimension], of norm 1.

    Raises:
        InputError: As `embed`.
    """
    if view == "whole":
        return embed(conversations, encoder, cache=cache, progress=progress)
    asked, answers = [], []
    for conversation in conversations:
        question, answer = parts(conversation)
        asked.append(question)
        answers.append(answer)
    result = embed([*asked, *answers], encoder, cache=cache, progress=progress)
    num_rows = len(asked)
    return result._replace(
        vectors=compose(result.vectors[:num_rows], result.vectors[num_rows:]),
        was_cut=result.was_cut[:num_rows] | result.was_cut[num_rows:],
    )


def parts(conversation: Conversation) -> tuple[Conversation, Conversation]:
    """What was asked, and the answer, as two conversations.

    The answer is the last assistant turn, written as a user's, which every chat template takes
    alone. What was asked is all the rest: system, earlier turns with their answers, and what may
    follow the answer. If one of them has no text, the other stands for both; if neither has, the
    whole conversation does.
    """
    answer = max(
        (i for i, turn in enumerate(conversation) if turn["role"] == "assistant"), default=None
    )
    if answer is None:
        return conversation, conversation
    asked = [turn for i, turn in enumerate(conversation) if i != answer]
    given = [{"role": "user", "content": conversation[answer]["content"]}]
    if _has_text(asked) and _has_text(given):
        return asked, given
    alone = asked if _has_text(asked) else given
    return (alone, alone) if _has_text(alone) else (conversation, conversation)


def compose(
    asked: np.ndarray, answer: np.ndarray, *, answer_share: float = ANSWER_SHARE, echo: float = ECHO
) -> np.ndarray:
    """One vector of norm 1 from two, a function of the row alone.

        a = unit(r - echo (r . p) p)
        vector = [sqrt(1 - answer_share) p, sqrt(answer_share) a]

    with p and r the unit vectors of prompt and answer. The cosine of two such vectors is the
    weighted mean of the cosines of their parts. An answer lies partly along its prompt, which the
    prompt's own vector says already; some of that echo is taken away. `|r - echo (r . p) p|` is at
    least `1 - echo`: an answer that repeats its prompt keeps its direction, so that a row with
    one part in both places has `a = p`.

    Args:
        asked, answer: `[n, d]`, of any length but 0.
        answer_share: In [0, 1].
        echo: In [0, 1); at 1 an answer that repeats its prompt would have no direction.

    Returns:
        float32 `[n, 2 d]`.

    Raises:
        InputError: A vector of length 0.
    """
    p, r = _unit(asked), _unit(answer)
    a = _unit(r - echo * np.sum(r * p, axis=1, keepdims=True) * p)
    composed = [np.sqrt(1 - answer_share) * p, np.sqrt(answer_share) * a]
    return np.concatenate(composed, axis=1).astype(np.float32)


def vectors_fingerprint(encoder: Encoder, view: View) -> str:
    """Hash (32 hex) of all that decides a row's vector; the encoder's own for whole rows."""
    if view == "whole":
        return encoder.fingerprint
    return encoder_fingerprint(
        encoder=encoder.fingerprint, view=view, answer_share=ANSWER_SHARE, echo=ECHO
    )


def _has_text(conversation: Conversation) -> bool:
    return any(turn["content"].strip() for turn in conversation)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise InputError(
            f"The embedding model gave {np.sum(lengths == 0)} vectors of length 0, which have no "
            "direction. Choose another model, or set embedding.view to whole."
        )
    return vectors / lengths
