"""Mutations of a checkpoint's files, each one kind of damage that people or programs do."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
WEIGHTS = "model-00001-of-00002.safetensors"
DOCUMENTS = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", INDEX,
    "special_tokens_map.json",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**30, 0.5, -2.5, 1e300, float("nan"),
    float("inf"), "", "x", "llama", "2", "\ud800", "{{ 1", [], {}, [None], [[]], {"a": None},
    {"content": 3}, ["x", 2], [2, 0],
)  # fmt: skip
DEEP = 50_000


def mutations(folder: Path, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """So many pairs of a file of the folder and what it has now, one file damaged at a time."""
    rng = random.Random(seed)
    texts = {name: (folder / name).read_text("utf-8") for name in DOCUMENTS}
    weights = (folder / WEIGHTS).read_bytes()
    for number in range(count):
        if number % 7 == 6:
            yield WEIGHTS, _weights(rng, weights)
            continue
        name = rng.choice(DOCUMENTS)
        if rng.random() < 0.1:
            yield name, _bytes(rng, texts[name].encode())
        else:
            yield name, _changed(rng, texts[name])


def _changed(rng: random.Random, text: str) -> bytes:
    """One to three places of a JSON document changed."""
    document = json.loads(text)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(document))
        if not places:
            break
        # Places near the top are more telling than the thousandth merge.
        holder, key = min(rng.sample(places, min(3, len(places))), key=lambda item: item[2])[:2]
        rng.choice(CHANGES)(rng, holder, key)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any, int]]:
    items = (
        value.items() if isinstance(value, dict)
        else list(enumerate(value))[:3] if isinstance(value, list) else ()
    )  # fmt: skip
    for key, item in list(items)[:40]:
        yield value, key, depth
        yield from _places(item, depth + 1)


def _replace(rng: random.Random, holder: Any, key: Any) -> None:
    holder[key] = copy.deepcopy(rng.choice(VALUES))


def _remove(rng: random.Random, holder: Any, key: Any) -> None:
    del holder[key]


def _twice(rng: random.Random, holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[f"{key}_token"] = holder[key]


def _wrap(rng: random.Random, holder: Any, key: Any) -> None:
    holder[key] = rng.choice(([holder[key]], {"content": holder[key]}, str(holder[key])))


CHANGES: tuple[Callable[[random.Random, Any, Any], None], ...] = (
    _replace, _replace, _replace, _remove, _twice, _wrap,
)  # fmt: skip


def _bytes(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return rng.choice(
        (
            data[:at],
            data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
            data[:at] + data[at + 9 :],
            b"\xef\xbb\xbf" + data,
            b"[" * DEEP,
            b'{"a":' * DEEP,
            b"",
            b"null",
            b"[]",
            b'"text"',
            data.replace(b'"', b"'"),
        )
    )


def _weights(rng: random.Random, data: bytes) -> bytes:
    """A damaged header, or a damaged length of it."""
    if rng.random() < 0.2:
        return _bytes(rng, data[:200]) + data[200:]
    (length,) = struct.unpack("<Q", data[:8])
    text = _changed(rng, data[8 : 8 + length].decode())
    claimed = len(text) if rng.random() < 0.9 else rng.choice((0, 1, 2**40, 2**63, 2**64 - 1))
    return struct.pack("<Q", claimed) + text + data[8 + length :]
