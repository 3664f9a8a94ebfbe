"""The added tokens that a tokenizer has once transformers has loaded it.

tokenizer.json may give a token an id that the tokenizers library does not give it (a gap in the
ids), and tokenizer_config.json may name tokens that tokenizer.json has not. Source: transformers
`tokenization_utils_tokenizers.py`, `TokenizersBackend.__init__`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeproof.checkpoints.settings import DECODER, EXTRA
from edgeproof.errors import InputError

Json = Mapping[str, Any]

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def loaded(document: Json, settings: Json, source: Path) -> list[dict[str, Any]]:
    """`added_tokens` of a parsed tokenizer.json as it is after loading; the given ones mostly.

    `source` is the file. The tokenizers library is asked only where something is to be decided: it
    takes a while.

    Raises:
        InputError: the library cannot read the document, or a token's fields are none.
    """
    given: list[dict[str, Any]] = list(document.get("added_tokens") or ())
    try:
        more = list(_more(given, settings))
        if not more and _in_place(given, document["model"]["vocab"]):
            return given
        return _by_library(document, more, source)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{source}: its added tokens are not understood ({error})") from None


def _more(given: Sequence[Json], settings: Json) -> Iterator[dict[str, Any]]:
    """Tokens of the settings that tokenizer.json has not, or not so, in transformers' order."""
    known = {_key(token) for token in given}
    texts = {token["content"] for token in given}
    listed = sorted(dict(settings.get(DECODER) or {}).items(), key=lambda item: int(item[0]))
    for _, token in listed:
        if _key(token) not in known:
            texts.add(token["content"])
            yield {"content": token["content"], **_flags(token)}
    named = [value for key, value in settings.items() if key.endswith("_token")]
    extra = next((settings[key] for key in EXTRA if settings.get(key)), ())
    for token in (*named, *(extra.values() if isinstance(extra, Mapping) else extra)):
        fields = token if isinstance(token, Mapping) else {"content": token, "special": True}
        text = fields.get("content")
        if isinstance(text, str) and text and text not in texts:
            texts.add(text)
            yield {"content": text, **_flags(fields), "special": True}


def _key(token: Json) -> tuple[Any, ...]:
    return token["content"], *_flags(token).values()


def _flags(token: Json) -> dict[str, bool]:
    """As `AddedToken` has them: a special token's text is not normalised first."""
    special = bool(token.get("special", False))
    defaults = {"normalized": not special}
    return {name: bool(token.get(name, defaults.get(name, False))) for name in FLAGS}


def _in_place(given: Sequence[Json], vocab: Any) -> bool:
    """Whether the library gives each token the id that the file says."""
    ids = vocab if isinstance(vocab, Mapping) else {row[0]: i for i, row in enumerate(vocab)}
    highest = -1
    for token in given:
        text = token["content"]
        if not text:
            return False
        after = highest + 1 if highest >= len(ids) else len(ids)
        index = ids.get(text, after)
        if index != token["id"]:
            return False
        highest = max(highest, index)
    return True


def _by_library(document: Json, more: Sequence[Json], source: Path) -> list[dict[str, Any]]:
    from tokenizers import AddedToken, Tokenizer

    try:
        tokenizer = Tokenizer.from_str(json.dumps(document))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{source}: cannot be opened ({reason})") from None
    tokenizer.add_tokens([AddedToken(**token) for token in more])
    found = tokenizer.get_added_tokens_decoder()
    return [
        {
            "id": index,
            "content": token.content,
            **{name: getattr(token, name) for name in FLAGS},
        }
        for index, token in sorted(found.items())
    ]
