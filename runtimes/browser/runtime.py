"""ONNX artifacts in transformers.js, in a page of Chromium: WebAssembly, or WebGPU.

Tokenizer, session and KV cache are the library's own. Invariant: the page is told which device to
use and is given no other; transformers.js does not fall back by itself.
"""

from __future__ import annotations

import contextlib
import unicodedata
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.errors import InputError
from runtimes.browser.chromium import Browser, with_gpu, without_gpu
from runtimes.browser.harness_page import open_page
from runtimes.browser.packages import versions
from runtimes.browser.page import PageError
from runtimes.sequence import SequenceRuntime

# How a graph's file name ends → transformers.js's name of its dtype.
DTYPES = {
    "": "fp32",
    "_fp16": "fp16",
    "_quantized": "q8",
    "_int8": "int8",
    "_uint8": "uint8",
    "_q4": "q4",
    "_q4f16": "q4f16",
    "_bnb4": "bnb4",
}
LOGITS = {"float32": np.float32, "float16": np.float16}


class TransformersJs(SequenceRuntime):
    """A decoder graph in transformers.js. Use `open_runtime`."""

    name = "transformers.js"
    version = versions()["@huggingface/transformers"]

    def __init__(self, artifact: Artifact, browser: Browser, device: str, threads: int) -> None:
        config = read_json(artifact.path / "config.json")
        self.vocabulary = int(config["vocab_size"])
        self.context = int(config["max_position_embeddings"])
        self._closing = contextlib.ExitStack()
        try:
            logits = self.chunk * self.vocabulary * np.dtype(np.float32).itemsize
            self._page, self._site = open_page(
                self._closing, artifact, browser, "transformers", logits
            )
            options = {"dtype": _dtype(artifact), "device": device, "threads": threads}
            opened = self._run("open", options)
        except PageError as error:
            self.close()
            raise InputError(f"{artifact.path}: transformers.js cannot load it: {error}") from None
        except BaseException:
            self.close()
            raise
        self.device = f"Chromium, {opened['device']}" + (f", {browser.gpu}" if browser.gpu else "")

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens in the text parsed, none added."""
        return list(self._run("tokenize", text))

    def splits_otherwise(self, text: str) -> bool:
        """Whether it has a numeral that is not ASCII.

        transformers.js 4.3 splits at digits with a RegExp's own class, which knows ten.
        """
        return any(unicodedata.category(c).startswith("N") for c in text if not c.isascii())

    def generate(self, ids: list[int], count: int) -> list[int]:
        """Greedy tokens after a prompt, by the library's own loop."""
        return list(self._run("generate", ids, count))

    def close(self) -> None:
        """End the page; calling it again does nothing."""
        self._closing.close()

    def _clear(self) -> None:
        self._run("clear")

    def _extend(self, ids: np.ndarray, every: bool) -> np.ndarray:
        answer = self._run("extend", ids.tolist(), every)
        values = np.frombuffer(self._site.posted.get_nowait(), LOGITS[answer["type"]])
        logits: np.ndarray = values.reshape(answer["dims"])[0].astype(np.float32)  # [n or 1, V]
        return logits

    def _run(self, *call: Any) -> Any:
        return self._page.call("run", list(call))


def open_runtime(artifact: Artifact, threads: int) -> TransformersJs:
    """Open an ONNX artifact in WebAssembly, as in a browser without a GPU.

    Raises:
        InputError: no Chromium, no npm packages, or transformers.js refuses the files.
    """
    return TransformersJs(artifact, without_gpu(), "wasm", threads)


def open_gpu_runtime(artifact: Artifact, threads: int) -> TransformersJs:
    """Open an ONNX artifact on WebGPU with shader-f16; `threads` are the CPU's.

    Raises:
        InputError: as for `open_runtime`, or no GPU to be had.
    """
    return TransformersJs(artifact, with_gpu(), "webgpu", threads)


def _dtype(artifact: Artifact) -> str:
    """What transformers.js calls the graph in the folder `onnx`.

    Raises:
        InputError: it has a name that transformers.js does not look for.
    """
    names = [PurePosixPath(item.path) for item in artifact.manifest.outputs]
    graphs = [name.stem for name in names if name.match("onnx/*.onnx")]
    suffixes = [name.removeprefix("model") for name in graphs]
    if len(suffixes) != 1 or suffixes[0] not in DTYPES:
        raise InputError(f"{artifact.path}: transformers.js knows no graph named {graphs}")
    return DTYPES[suffixes[0]]
