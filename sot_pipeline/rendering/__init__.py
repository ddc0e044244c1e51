"""Turn conversations into a model's tokens, and say which of them are answers to learn.

Everything that must agree between embedding, fine-tuning and evaluation about how a
conversation looks to the model: `render` for what the model reads, `render_with_answer_mask`
for which of those tokens it should learn to write.

* The tokenizer's own chat template is used where there is one. Its text is encoded with
  `add_special_tokens=False`, because the template writes the special tokens itself.
* Without a template, turns are written `role: content`, one per line, an answer closed by
  the end-of-sequence token.
* A special token spelled out inside a turn (`<|im_end|>` in an uploaded row) is taken apart
  with one space, so that no row can forge a turn, end an answer or move the answer mask.
* Models that can think are asked to answer at once, in training and in generation alike;
  reasoning that a row itself holds is rendered and learnt.
* Templates that write the day's date (Llama 3.1 and later, Mistral Small 3) are told one fixed
  day, so that the same row gives the same tokens tomorrow.
"""

from sot_pipeline.rendering.answers import (
    RenderedConversation,
    render_rows_with_answer_masks,
    render_with_answer_mask,
)
from sot_pipeline.rendering.template import TODAY, Conversation, render, render_text

__all__ = [
    "TODAY",
    "Conversation",
    "RenderedConversation",
    "render",
    "render_rows_with_answer_masks",
    "render_text",
    "render_with_answer_mask",
]
