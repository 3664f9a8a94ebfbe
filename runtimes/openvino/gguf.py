"""GGUF artifacts in OpenVINO, on the CPU, as OpenVINO GenAI's own reader understands them.

GenAI answers with tokens, not with logits; it writes what it has read as a model of OpenVINO's
(`enable_save_ov_model`), which is run here at every position. Its float constants are rounded to
float16 on the way. The model keeps the KV cache itself, as states.
Source: https://github.com/openvinotoolkit/openvino.genai, src/cpp/src/gguf_utils/.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import openvino as ov
import openvino_genai

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from runtimes.gguf_file import read_file, read_metadata
from runtimes.openvino.device import DEVICE, ERRORS, EXACT, VERSION, compiled, refused, settings
from runtimes.openvino.signal_stack import kept_signal_stack
from runtimes.sequence import SequenceRuntime

SAVED = "openvino_model.xml"
ONE_CALLER = "SDPA"
BEGIN, TYPES = "tokenizer.ggml.bos_token_id", "tokenizer.ggml.token_type"
# In GenAI's messages over a type that it does not read.
OF_A_TYPE = ("gguf_tensor_to_f16", "Unsupported quantization type")
CONTROL = gguf.TokenType.CONTROL
LONGEST = 8192  # tokens: of a longer text GenAI's tokenizer keeps the last ones


class OpenVinoGguf(SequenceRuntime):
    """A GGUF file as GenAI reads it. Use `open_runtime`."""

    name = "openvino-genai"
    version: str = f"{openvino_genai.__version__}, openvino {VERSION}"
    device = "CPU, float32"
    chunk = 128

    def __init__(self, path: Path, properties: Mapping[str, Any]) -> None:
        stated = read_metadata(path)
        self._path = path
        self.context = int(stated[f"{stated['general.architecture']}.context_length"])
        with tempfile.TemporaryDirectory(prefix="edgeproof-openvino-") as folder:
            self._tokenizer = convert(path, Path(folder))
            self._model: Any = compiled(Path(folder) / SAVED, properties, path)
        self._request: Any = self._model.create_infer_request()
        self.vocabulary = int(self._model.output("logits").get_partial_shape()[-1].get_length())
        self.stop_tokens = frozenset({int(self._tokenizer.get_eos_token_id())})
        self.begin_token = None if (begin := stated.get(BEGIN)) is None else int(begin)
        self.special_tokens = frozenset(
            np.flatnonzero(np.asarray(stated[TYPES]) == CONTROL).tolist()
        )

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens in the text parsed, none added."""
        if not text:
            return []  # GenAI's tokenizer takes no empty text
        found = self._tokenizer.encode(text, add_special_tokens=False).input_ids.data
        ids: list[int] = found.reshape(-1).tolist()
        return ids

    def splits_otherwise(self, text: str) -> bool:
        """Whether the tokenizer leaves out a beginning, whatever the file and its context."""
        return len(self.tokenize(text)) == LONGEST

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def close(self) -> None:
        """Free the model and its states."""
        self._request = self._model = None

    def _clear(self) -> None:
        self._request.reset_state()

    def _cut(self, length: int) -> bool:
        for state in self._request.query_state():
            state.state = ov.Tensor(np.ascontiguousarray(state.state.data[:, :, :length]))
        return True

    def _extend(self, ids: np.ndarray, every: bool) -> np.ndarray:
        count = self.length + len(ids)
        given = {
            "input_ids": ids[None],
            "attention_mask": np.ones((1, count), np.int64),
            "position_ids": np.arange(self.length, count)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        try:
            for name, array in given.items():
                self._request.set_tensor(name, ov.Tensor(array))
            self._request.infer()
        except ERRORS as error:
            raise refused(self._path, error) from None
        logits: np.ndarray = self._request.get_tensor("logits").data[0]
        return logits if every else logits[-1:]


def open_runtime(
    artifact: Artifact, threads: int, properties: Mapping[str, Any] = EXACT
) -> OpenVinoGguf:
    """Open a GGUF artifact of one file, with these properties of the device.

    Raises:
        InputError: it is split, or GenAI does not read its architecture or one of its types.
    """
    path, *more = artifact.files(".gguf")
    if more:
        raise InputError(f"{path}: OpenVINO GenAI reads no split files; export it without splits")
    return OpenVinoGguf(path, settings(threads, properties))


@kept_signal_stack()
def convert(path: Path, folder: Path) -> Any:
    """Write what GenAI reads of a file into a folder, as `SAVED`; its tokenizer.

    Whatever the model is run with later, GenAI's pipeline is opened as lightly as it can be: its
    usual one for many callers ends the process on some virtual machines.

    Raises:
        InputError: GenAI refuses the file.
    """
    link = folder / "model.gguf"  # GenAI writes beside the file that it is given
    link.symlink_to(path.resolve())
    try:
        pipeline = openvino_genai.LLMPipeline(
            str(link),
            DEVICE,
            ATTENTION_BACKEND=ONE_CALLER,
            enable_save_ov_model=True,
            **settings(1),
        )
        return pipeline.get_tokenizer()
    except ERRORS as error:
        reason = refused(path, error)
        if not any(text in str(error) for text in OF_A_TYPE):
            raise reason from None
        _, tensors = read_file(path)
        types = sorted({tensor.type.name for tensor in tensors if len(tensor.shape) > 1})
        raise InputError(
            f"{reason}: its matrices are {', '.join(types)}, of which GenAI does not read every"
            " type; export it as q8_0 or q4_0"
        ) from None
