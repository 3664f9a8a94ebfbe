"""What a GGUF file calls itself, by which people and programs choose one: what it really holds.

llama.cpp and lists of models show `general.file_type`; downloads by a tag, as Ollama's and
llama.cpp's `-hf USER/MODEL:Q4_K_M`, look for the type in files' names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from gguf.constants import LlamaFileType

from runtimes.contents.expectation import Expected
from runtimes.gguf_file import GgufTensor

FILE_TYPE, FILE_NAME = "general.file_type", "its name"
# Without what the library says of how much of a file is of the type.
FILE_TYPES = {item.name.partition("_")[2]: int(item) for item in LlamaFileType}


def labels(variant: str, tensors: Iterable[GgufTensor], said: Any) -> dict[str, Any]:
    """What the file type and the name of the file of a variant have to be; `said` is the type.

    One that is called after no type is called after that of some of its matrices.
    """
    asked = variant.partition("-")[0].upper()
    if asked in FILE_TYPES:
        return {FILE_TYPE: FILE_TYPES[asked], FILE_NAME: _named(asked)}
    stored = {tensor.type.name for tensor in tensors if len(tensor.shape) > 1}
    known = {number: name for name, number in FILE_TYPES.items() if name in stored}
    return {
        FILE_TYPE: Expected("the type of one of its matrices", known.__contains__),
        FILE_NAME: _named(known.get(said, "")),
    }


def _named(kind: str) -> Expected:
    """The type is the name's end, but for what is special about it and the number of a split."""
    name = re.compile(rf".+-{re.escape(kind)}(-.+)?\.gguf")
    return Expected(f"a name with {kind} in it", lambda said: name.fullmatch(said) is not None)
