"""TVM's Relax bytecode, as far as it is needed to read constants and calls.

Source: tvm `src/runtime/vm/executable.cc` and `include/tvm/runtime/vm/bytecode.h`, version 0.14 of
the bytecode; any other version is tried as that one. Two spellings exist: libraries from before
tvm-ffi (WebLLM up to 0.2.79) name the executable `relax.Executable` and number the kinds of
constants otherwise.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeproof.errors import InputError

# Names of the executable in a library → its tags of constants.
TAGS: dict[bytes, dict[int, str]] = {
    b"relax.VMExecutable": {
        1: "int", 3: "float", 5: "dtype", 65: "string", 69: "shape", 70: "tensor",
    },
    b"relax.Executable": {
        0: "tensor", 1: "dtype", 2: "shape", 3: "string", 4: "int", 5: "float",
    },
}  # fmt: skip
# Magic numbers; with the second one, memory scopes come before the constants.
PLAIN, SCOPED = 0xD225DE2F4214151D, 0xD225DE2F4214151E
VERSION = "0.14"
ANY_VERSION = re.compile(rb"\d+(\.\d+)+")
CALL = 1
# An argument's word: 8 bits of kind, 56 of value.
VALUE_BITS = 56
REGISTER, IMMEDIATE, CONSTANT = 0, 1, 2


@dataclass(frozen=True)
class Executable:
    """Functions (name → first and last instruction), constants and code.

    A constant is bytes, a number, a tuple (shape), or None for what is not read.
    """

    names: tuple[str, ...]
    ranges: dict[str, range]
    constants: tuple[Any, ...]
    offsets: tuple[int, ...]
    words: tuple[int, ...]

    def calls(self, function: str) -> Iterator[tuple[str, list[Any]]]:
        """(callee, arguments) of each call in a function; a register's argument is None."""
        for instruction in self.ranges.get(function, ()):
            at = self.offsets[instruction]
            if self.words[at] != CALL:
                continue
            count = self.words[at + 3]
            arguments = [self._argument(word) for word in self.words[at + 4 : at + 4 + count]]
            yield self.names[self.words[at + 2]], arguments

    def _argument(self, word: int) -> Any:
        kind = (word >> VALUE_BITS) & 0xFF
        value = word & ((1 << VALUE_BITS) - 1)
        value -= (value >> (VALUE_BITS - 1)) << VALUE_BITS
        if kind == CONSTANT:
            return self.constants[value]
        return value if kind == IMMEDIATE else None


@dataclass(frozen=True)
class Bytecode:
    """The executable; None where it is of a `version` that is not known and cannot be read."""

    version: str
    executable: Executable | None


def find_bytecode(memory: bytes, source: str) -> Bytecode:
    """The bytecode in a library's memory; `source` names the file in errors.

    Raises:
        InputError: there is none, or it is malformed.
    """
    for name, tags in TAGS.items():
        begin = memory.find(struct.pack("<Q", len(name)) + name)
        if begin >= 0:
            reader = _Reader(memory, begin + 8 + len(name) + 8)  # its size comes before it
            version, executable = None, None
            try:
                scoped, version = _head(reader)
                executable = _read(reader, tags, scoped=scoped)
            except (struct.error, KeyError, IndexError, UnicodeDecodeError, ValueError):
                if version in (None, VERSION):
                    raise InputError(
                        f"{source}: the bytecode of this model library has an unknown layout;"
                        " compile it with a current mlc_llm"
                    ) from None
            return Bytecode(version, executable)
    raise InputError(f"{source}: not a model library of MLC: it has no Relax executable")


class _Reader:
    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self._place = place

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self._place:
            raise ValueError
        self._place += count
        return self._data[self._place - count : self._place]

    def one(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def many(self) -> tuple[int, ...]:
        count = self.one("Q")
        return struct.unpack(f"<{count}q", self.take(8 * count))

    def string(self) -> bytes:
        return self.take(self.one("Q"))


def _head(reader: _Reader) -> tuple[bool, str]:
    """Whether there are memory scopes, and the version."""
    magic, version = reader.one("Q"), reader.string()
    if magic not in (PLAIN, SCOPED) or not ANY_VERSION.fullmatch(version):
        raise ValueError
    return magic == SCOPED, version.decode()


def _read(reader: _Reader, tags: dict[int, str], *, scoped: bool) -> Executable:
    names, ranges = [], {}
    for _ in range(reader.one("Q")):
        reader.one("i")  # kind
        names.append(reader.string().decode())
        begin, end, _, _ = (reader.one("q") for _ in range(4))
        ranges[names[-1]] = range(begin, end)
        for _ in range(reader.one("Q")):
            reader.string()  # a parameter's name
    if scoped:
        for _ in range(reader.one("Q")):
            reader.one("q")
            reader.string()
    constants = tuple(_constant(reader, tags[reader.one("i")]) for _ in range(reader.one("Q")))
    return Executable(tuple(names), ranges, constants, reader.many(), reader.many())


def _constant(reader: _Reader, kind: str) -> Any:
    if kind == "string":
        return reader.string()
    if kind == "shape":
        return reader.many()
    if kind in ("int", "float"):
        return reader.one("q" if kind == "int" else "d")
    if kind == "dtype":
        reader.take(4)
        return None
    reader.take(8 + 8 + 8)  # a tensor: magic, reserved, device
    rank = reader.one("i")
    reader.take(4 + 8 * rank)  # dtype, shape
    reader.string()
    return None
