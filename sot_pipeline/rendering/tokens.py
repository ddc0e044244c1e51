"""Texts to token ids, and which tokens write which characters."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from sot_pipeline.errors import InputError

_LONGEST_REMEMBERED = 64  # characters; what templates write before an answer is shorter


class Encoded(NamedTuple):
    """A text with its tokens; `offsets` are their characters, None where not known."""

    text: str
    token_ids: list[int]
    offsets: list[tuple[int, int]] | None


def encode(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def encode_with_offsets(tokenizer, texts: list[str]) -> list[Encoded]:
    """Texts encoded in one call, which fast tokenizers spread over the processor's cores."""
    batch = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=tokenizer.is_fast,
        verbose=False,
    )
    offsets = batch["offset_mapping"] if tokenizer.is_fast else [None] * len(texts)
    return list(map(Encoded, texts, batch["input_ids"], offsets))


def answer_positions(
    tokenizer, encoded: Encoded, spans: Sequence[tuple[int, int]]
) -> list[Sequence[int]]:
    """Positions of the tokens of each character span: by token prefixes, else by offsets.

    Prefixes are what generation will see. Where tokenisation merges characters across the
    border, a token counts as answer when any of its characters does.

    Raises:
        InputError: Such a merge, and a tokenizer without offsets.
    """
    borders = _Borders(tokenizer, encoded)
    positions = []
    for start, end in spans:
        first, last = borders.prefix_length(start), borders.prefix_length(end)
        if first is not None and last is not None:
            positions.append(range(first, last))
        elif encoded.offsets is not None:
            characters = enumerate(encoded.offsets)
            positions.append([i for i, (a, b) in characters if a < end and b > start and b > a])
        else:
            raise InputError(
                "The tokenizer merges characters of the prompt and the answer into one token and "
                "gives no character offsets. Use a model that comes with a tokenizer.json."
            )
    return positions


class _Borders:
    """How many tokens the prefixes of one text have.

    Tokenizers split a text at its added tokens before anything else and encode the parts on
    their own (`AddedVocabulary` of Hugging Face tokenizers). So the tokens of a prefix are
    those of the whole text up to the last added token in it, and behind that token the same
    as when the rest is encoded alone; that rest is mostly the same few characters in each row.
    """

    def __init__(self, tokenizer, encoded: Encoded):
        self.text, self.token_ids, self.offsets = encoded
        self._pieces = _pieces(tokenizer, len(tokenizer))
        anchors = self._pieces.anchors
        self._anchors = [
            i
            for i, token in enumerate(self.token_ids)
            if token in anchors and self.offsets and self._characters(i) == anchors[token]
        ]
        self._anchor_ends = [self.offsets[i][1] for i in self._anchors] if self.offsets else []

    def _characters(self, i: int) -> str:
        assert self.offsets is not None
        start, end = self.offsets[i]
        return self.text[start:end]

    def prefix_length(self, border: int) -> int | None:
        """How many tokens write `text[:border]`, or None where one of them reaches beyond it."""
        nearest = bisect_right(self._anchor_ends, border) - 1
        first, start = 0, 0
        if self.offsets is not None and nearest >= 0:
            first = self._anchors[nearest]
            start = self.offsets[first][0]
        ids = self._pieces.encode(self.text[start:border])
        count = first + len(ids)
        if self.token_ids[first:count] != ids:
            return None
        # Equal ids are not enough: two different words may both be unknown to the vocabulary.
        beyond = self.offsets is not None and count > 0 and self.offsets[count - 1][1] > border
        return None if beyond else count


class _Pieces:
    """The added tokens that part a text wherever they stand, and short pieces encoded before."""

    def __init__(self, tokenizer):
        self.anchors = {
            i: token.content
            for i, token in tokenizer.added_tokens_decoder.items()
            if not (token.normalized or token.lstrip or token.rstrip or token.single_word)
        }
        self._tokenizer = tokenizer
        self._remembered: dict[str, list[int]] = {}

    def encode(self, piece: str) -> list[int]:
        known = self._remembered.get(piece)
        if known is None:
            known = encode(self._tokenizer, piece)
            if len(piece) <= _LONGEST_REMEMBERED and len(self._remembered) < 4096:
                self._remembered[piece] = known
        return known


@lru_cache(maxsize=8)  # the size tells a tokenizer to which tokens were added meanwhile
def _pieces(tokenizer, size: int) -> _Pieces:
    return _Pieces(tokenizer)
