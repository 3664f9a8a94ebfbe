"""The initial memory of a WebAssembly module, from its data section.

Source: https://webassembly.github.io/spec/core/binary/modules.html. wasm-opt cuts data at runs of
zeros, so a structure that spans segments can only be read from the memory that they make up.
"""

from __future__ import annotations

from edgeproof.errors import InputError

MAGIC = b"\0asm\x01\0\0\0"
DATA_SECTION = 11
PASSIVE, WITH_MEMORY_INDEX = 1, 2
I32_CONST, END = 0x41, 0x0B
# Model libraries have a few megabytes; a hostile offset must not make us allocate gigabytes.
MOST_BYTES = 256 << 20


def initial_memory(module: bytes, source: str) -> bytes:
    """Memory as the module's active data segments initialise it; `source` names it in errors.

    Raises:
        InputError: not a WebAssembly module, truncated, or without data.
    """
    if not module.startswith(MAGIC):
        raise InputError(f"{source}: not a WebAssembly module; give the model library's .wasm")
    try:
        segments = _segments(module, _section(module, DATA_SECTION))
    except (IndexError, ValueError):
        raise InputError(f"{source}: truncated or malformed WebAssembly; get it again") from None
    memory = bytearray(max((offset + len(data) for offset, data in segments), default=0))
    for offset, data in segments:
        memory[offset : offset + len(data)] = data
    return bytes(memory)


def _section(module: bytes, wanted: int) -> int:
    """Where the section's content begins; all sections must be whole."""
    begins = {}
    place = len(MAGIC)
    while place < len(module):
        kind = module[place]
        size, begins[kind] = _unsigned(module, place + 1)
        place = begins[kind] + size
    if place != len(module) or wanted not in begins:
        raise ValueError
    return begins[wanted]


def _segments(module: bytes, place: int) -> list[tuple[int, bytes]]:
    """(offset in memory, bytes) of each active segment."""
    segments = []
    count, place = _unsigned(module, place)
    for _ in range(count):
        flags, place = _unsigned(module, place)
        if flags == WITH_MEMORY_INDEX:
            _, place = _unsigned(module, place)
        offset = None
        if flags != PASSIVE:
            if module[place] != I32_CONST:
                raise ValueError
            offset, place = _unsigned(module, place + 1)
            if module[place] != END:
                raise ValueError
            place += 1
        size, place = _unsigned(module, place)
        data = module[place : place + size]
        place += size
        if len(data) != size or (offset or 0) + size > MOST_BYTES:
            raise ValueError
        if offset is not None:
            segments.append((offset, data))
    return segments


def _unsigned(data: bytes, place: int) -> tuple[int, int]:
    """A LEB128 number and the place behind it; memory offsets below 2 GiB read alike as signed."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
        if shift > 35:
            raise ValueError
