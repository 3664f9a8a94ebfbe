"""ONNX artifacts in OpenVINO, on the CPU.

OpenVINO has no tokenizer for an ONNX folder: text is split by the folder's tokenizer.json, as those
who run it so do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov

from edgeproof.artifact import Artifact
from runtimes.onnxruntime import OnnxRuntime, OnnxSequence, open_graph
from runtimes.openvino.device import ERRORS, EXACT, VERSION, compiled, refused, settings

ONE_SEQUENCE = "GroupQueryAttention"
TYPES = {"f32": "tensor(float)", "f16": "tensor(float16)"}


class OpenVinoOnnx(OnnxSequence):
    """A decoder graph in OpenVINO; the KV cache travels through main memory. Use `open_runtime`."""

    name = "openvino"
    version = VERSION
    device = "CPU, float32"


class OpenVinoBatches(OpenVinoOnnx, OnnxRuntime):
    """One without GroupQueryAttention, of which OpenVINO makes nothing usable for a batch."""


def open_runtime(
    artifact: Artifact, threads: int, properties: Mapping[str, Any] = EXACT
) -> OpenVinoOnnx:
    """Open an ONNX artifact's graph for transformers.js, with these properties of the device.

    Raises:
        InputError: OpenVINO lacks an operator of the graph, or it is no decoder with a KV cache.
    """
    chosen = settings(threads, properties)
    session, path, tokenizer, ids = open_graph(artifact, lambda path: Session(path, chosen))
    nodes = onnx.load(path, load_external_data=False).graph.node
    alone = any(node.op_type == ONE_SEQUENCE for node in nodes)
    return (OpenVinoOnnx if alone else OpenVinoBatches)(session, path, tokenizer, ids)


@dataclass(frozen=True)
class Port:
    """An input or output as ONNX Runtime's sessions describe theirs."""

    name: str
    type: str
    shape: list[int | None]


@dataclass(frozen=True)
class Value:
    """An output, as ONNX Runtime's values give theirs."""

    array: np.ndarray

    def numpy(self) -> np.ndarray:
        """Its numbers."""
        return self.array

    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array.shape


class Session:
    """What `OnnxSequence` asks of a session, answered by OpenVINO."""

    def __init__(self, path: Path, properties: Mapping[str, Any]) -> None:
        self._path = path
        self._model = compiled(path, properties)
        self._request = self._model.create_infer_request()
        self._scalars = {port.name for port in self.get_inputs() if not port.shape}

    def get_inputs(self) -> list[Port]:
        """The model's inputs."""
        return [port for found in self._model.inputs for port in _ports(found)]

    def get_outputs(self) -> list[Port]:
        """The model's outputs."""
        return [port for found in self._model.outputs for port in _ports(found)]

    def run_with_ort_values(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[Value]:
        """The outputs named, copied: OpenVINO's own memory is filled again by the next run.

        Raises:
            InputError: the model cannot be run on these inputs.
        """
        given = {name: _plain(value.numpy()) for name, value in feeds.items()}
        given |= {name: given[name].reshape(()) for name in self._scalars & given.keys()}
        try:
            for name, array in given.items():
                self._request.set_tensor(name, ov.Tensor(array, shared_memory=True))
            self._request.infer()
            found = [self._request.get_tensor(name).data for name in outputs]
            return [Value(np.array(array)) for array in found]
        except ERRORS as error:
            raise refused(self._path, error) from None


def _plain(array: np.ndarray) -> np.ndarray:
    """Of NumPy's own dtype: OpenVINO's binding does not know C's `long long`, an int64 too."""
    return np.asarray(array, np.dtype(array.dtype.name))


def _ports(port: Any) -> Iterator[Port]:
    """A port under each of its names: what is computed only once may have several."""
    kind = port.get_element_type().get_type_name()
    shape = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    for name in port.get_names():
        yield Port(name, TYPES.get(kind, kind), shape)
