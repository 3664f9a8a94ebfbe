"""Which ids of an open tokenizer.json are no text."""

from __future__ import annotations

from tokenizers import Tokenizer


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Those that are left out by `skip_special_tokens`."""
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(index for index, token in added.items() if token.special)
