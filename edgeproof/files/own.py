"""Read our own JSON files: what is there has the types of its dataclass, or the file is damaged.

Anybody may have written them: a disk that was full, an editor, a merge. Whatever is in one, reading
it gives the dataclass or one line that names the file and the key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edgeproof.display import printable
from edgeproof.errors import InputError
from edgeproof.files.schema import Schema

T = TypeVar("T")

# What a JSON escape can make that no text has, and no terminal or file takes.
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
MOST = 2**63
LONGEST = 80  # characters of foreign text in an error
NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


class DamagedFileError(InputError):
    """A file of ours has not in it what is written there."""


class UnreadableFileError(InputError):
    """What is in a file of ours is not known."""


class WrongJsonError(ValueError):
    """What is wrong, after the key at which it is."""


def read_own(path: Path, schema: Schema, take: Callable[[dict[str, Any]], T]) -> T:
    """What `take` makes of the JSON object in a file.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: the system does not give it.
        DamagedFileError: it is no JSON, has another schema's type, or `take` raises WrongJsonError.
        InputError: it is too old, or a newer edgeproof wrote it; and what `take` raises.
    """
    return parse_own(own_bytes(path), str(path), schema, take)


def own_bytes(path: Path) -> bytes:
    """A file's bytes; of a pipe nobody would ever see the end.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: the system does not give it, or it is no file.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UnreadableFileError(f"{path}: cannot be read (no regular file)")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be read ({error.strerror})") from None


def parse_own(data: bytes, source: str, schema: Schema, take: Callable[[dict[str, Any]], T]) -> T:
    """The same of a file's bytes; `source` names it in errors.

    Raises:
        DamagedFileError, InputError: as `read_own`.
    """
    try:
        raw = json_object(data)
        if "schema" not in raw:
            raise WrongJsonError("schema is missing")
        if type(raw["schema"]) is not int:
            raise wrong("schema", "a whole number", raw["schema"])
        schema.check(raw["schema"], source, _inner(raw, schema.writer))
        return take(raw)
    except WrongJsonError as error:
        raise DamagedFileError(
            f"{source}: damaged, not {schema.what} ({error}); {schema.again}"
        ) from None


def json_object(data: bytes) -> dict[str, Any]:
    """A parsed JSON object, with numbers and texts that everything here can handle.

    Raises:
        WrongJsonError: it is none, or has other ones: of over 64 bits, infinite, half characters.
    """
    try:
        raw = json.loads(
            data.decode("utf-8"), parse_int=_whole, parse_float=_finite, parse_constant=_constant
        )
        if SURROGATE.search(data):
            json.dumps(raw, ensure_ascii=False).encode()
    except WrongJsonError:
        raise
    except UnicodeError:
        raise WrongJsonError("not UTF-8 text") from None
    except RecursionError:
        raise WrongJsonError("nested too deeply") from None
    except ValueError as error:
        raise WrongJsonError(f"not JSON: {error}" if data.strip() else "empty") from None
    return _object(raw, "all of it")


def typed(kind: type[T], value: object, key: str = "", *, exact: Collection[type] = ()) -> T:
    """A value of parsed JSON as `kind`.

    That is a dataclass, an enum of texts, `str`, `int` (from 0), `float`, `bool`, `Any`, or a
    union with None, a `tuple[X, ...]` or `dict[str, X]` of these. Keys that a dataclass has not are
    left out, but for the `exact` ones, where an unknown key is wrong.

    Raises:
        WrongJsonError: it is not, with the key; `key` is that of the value itself.
    """
    found: T = _typed(kind, value, key, frozenset(exact))
    return found


def wrong(key: str, expected: str, value: object) -> WrongJsonError:
    """The error for a value of another type."""
    return WrongJsonError(f"{_shown(key)}: {expected} expected, {_name(value)} found")


def _typed(kind: Any, value: object, key: str, exact: frozenset[type]) -> Any:
    outer, inner = get_origin(kind), get_args(kind)
    if outer in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        (kind,) = (item for item in inner if item is not NoneType)
        return _typed(kind, value, key, exact)
    if outer is tuple:
        return tuple(_items(inner[0], value, key, exact))
    if outer in (dict, Mapping):
        found = _object(value, key)
        return {name: _typed(inner[1], found[name], _below(key, name), exact) for name in found}
    if is_dataclass(kind):
        return _record(kind, _object(value, key), key, exact)
    return value if kind is Any else _plain(kind, value, key)


def _plain(kind: Any, value: object, key: str) -> Any:
    """A text, a number, true or false, or a member of an enum."""
    if issubclass(kind, Enum):
        return _member(kind, value, key)
    sound = type(value) in ((int, float) if kind is float else (kind,))
    if not sound or (kind is int and isinstance(value, int) and value < 0):
        raise wrong(key, NAMES[kind], value)
    return value


def _items(kind: Any, value: object, key: str, exact: frozenset[type]) -> Iterator[Any]:
    if not isinstance(value, list):
        raise wrong(key, "a list", value)
    for index, item in enumerate(value):
        yield _typed(kind, item, f"{key}[{index}]", exact)


def _object(value: object, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(key, "an object", value)
    return value


def _record(kind: Any, value: dict[str, Any], key: str, exact: frozenset[type]) -> Any:
    found = {}
    for name, (of, needed) in _fields(kind).items():
        if name in value:
            found[name] = _typed(of, value[name], _below(key, name), exact)
        elif needed:
            raise WrongJsonError(f"{_shown(_below(key, name))} is missing")
    if kind in exact and (more := value.keys() - _fields(kind).keys()):
        raise WrongJsonError(f"{_shown(_below(key, min(more)))} is unknown")
    return kind(**found)


@cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """A dataclass's fields: name → type, and whether it must be there."""
    hints = get_type_hints(kind)
    return {
        item.name: (
            hints[item.name],
            item.default is MISSING and item.default_factory is MISSING,
        )
        for item in fields(kind)
        if item.init
    }


def _member(kind: type[Enum], value: object, key: str) -> Enum:
    for member in kind:
        if member.value == value:
            return member
    raise wrong(key, f"one of {', '.join(str(member.value) for member in kind)}", value)


def _inner(raw: dict[str, Any], keys: tuple[str, ...]) -> object:
    found: object = raw
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _shown(key: str) -> str:
    text = printable(key)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _name(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, str):
        return repr(_shown(value))
    return "a list" if isinstance(value, list) else "an object"


def _whole(text: str) -> int:
    if len(text) > 20 or not -MOST <= (number := int(text)) < MOST:
        raise WrongJsonError(f"a number of {len(text)} digits")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise WrongJsonError("a number without end")
    return number


def _constant(text: str) -> float:
    raise WrongJsonError(f"{text} is no number")
