"""From a task's artefacts to what a defended training learns from, as plain values."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.defs.methods import READS
from sot_pipeline.defs.settings import DefenceSettings
from sot_pipeline.defs.store import Stored

Conversations = Sequence[Sequence[Mapping[str, Any]]]


class Safety(NamedTuple):
    """What the defences of a task learn from; None where none of them reads it."""

    safety_demonstrations: Stored | None = None
    harmless_prompts: Stored | None = None
    safe_texts: Stored | None = None

    def versions(self, defence: str) -> dict[str, str]:
        """Data versions of what a defence reads."""
        return {name: self.read(name).data_version for name in READS[defence]}

    def conversations(self, name: str, defence: str) -> Conversations:
        """Rows of an artefact, none where the defence does not read it."""
        if name not in READS[defence]:
            return []
        return [json.loads(messages) for messages in self.read(name).table()["messages"]]

    def read(self, name: str) -> Stored:
        stored = getattr(self, name)
        if stored is None:
            raise TypeError(f"{name} was not declared as read; see `cached_asset(uses=...)`")
        return stored


class Defended(NamedTuple):
    """Rows with one weight each, and a defence of the registry with what it learns from.

    `num_added`: how many of the rows, at the end, a defence mixed in.
    """

    conversations: Conversations
    weights: np.ndarray
    num_added: int
    defence: str
    options: Mapping[str, Any]
    demonstrations: Conversations
    harmless_prompts: Conversations


def defended(
    settings: DefenceSettings,
    defence: str,
    rows: pl.DataFrame,
    weights: np.ndarray,
    seed: int,
    safety: Safety,
) -> Defended:
    """What is trained on under a defence: methods that mix rows are done here, the others are
    left to the training loop.

    Args:
        rows: With `messages`, JSON texts.
    """
    from sot_pipeline.finetuning.mixing import with_demonstrations, with_safe_rows

    own = [json.loads(messages) for messages in rows["messages"]]
    demonstrations = safety.conversations("safety_demonstrations", defence)
    if defence in ("safe_instr", "safe_reference"):
        if defence == "safe_instr":
            share = settings.mix_share
            mixed = with_demonstrations(own, weights, demonstrations, share=share, seed=seed)
        else:
            mixed = with_safe_rows(own, weights, safety.conversations("safe_texts", defence))
        return Defended(*mixed, "none", {}, [], [])
    harmless = safety.conversations("harmless_prompts", defence)
    options = settings.options.get(defence, {})
    return Defended(own, weights, 0, defence, options, demonstrations, harmless)
