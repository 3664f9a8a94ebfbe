"""Reading ONNX folders as ONNX Runtime, transformers.js and ONNX Runtime GenAI do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.checkpoints.chat_template import (
    DEFAULT,
    TEMPLATE_FILE,
    chat_templates,
    template_source,
)
from edgeproof.checkpoints.settings import SETTINGS, special_texts, tokenizer_settings
from edgeproof.checkpoints.special_tokens import CONFIG, GENERATION
from runtimes import openvino
from runtimes.adapter import Adapter
from runtimes.chat_templates import Render, jinja_template
from runtimes.config_facts import END, Facts, Statement, end_tokens
from runtimes.contents import Content, Origin
from runtimes.formats.reader import Deployment, Engine, Reader, Stops, Twin
from runtimes.protocol import Runtime
from runtimes.said import read

WEBGPU = Adapter(
    "runtimes.webgpu",
    ("onnxruntime", "onnxruntime_ep_webgpu"),
    "webgpu",
    device="gpu",
    activations=None,
    real=True,
    in_process=True,
    code=None,
)
CUDA = Adapter(  # in the package onnxruntime-gpu, which takes onnxruntime's place
    "runtimes.onnxruntime_cuda",
    ("onnxruntime",),
    "onnxruntime",
    device="cuda",
    activations=None,
    real=True,
    in_process=True,
    code=None,
)
# transformers.js in a page of Chromium.
BROWSER = Adapter(
    "runtimes.browser.runtime",
    ("playwright",),
    "browser",
    device="cpu",
    activations="float32",
    real=True,
    in_process=False,
    code=None,
)
BROWSER_WEBGPU = Adapter(
    "runtimes.browser.webgpu",
    ("playwright",),
    "browser",
    device="gpu",
    activations=None,
    real=True,
    in_process=False,
    code=None,
)


def _weights(artifact: Artifact) -> Mapping[str, np.ndarray]:
    from runtimes.weights.onnx import read

    return read(artifact)


def _states(artifact: Artifact, ids: Sequence[int], threads: int) -> dict[str, np.ndarray]:
    from runtimes.states.onnx import trace

    return trace(artifact, ids, threads)


def _twins(artifact: Artifact) -> Sequence[Twin]:
    """The graph at the folder's root, Optimum's and GenAI's."""
    if artifact.foreign is not None:  # each of its graphs is looked at for itself
        return ()
    from runtimes.onnx_folder import GRAPH_FOLDER, ROOT
    from runtimes.onnx_twins import apart

    def opened(threads: int) -> Runtime:
        from runtimes.onnxruntime import open_runtime

        return open_runtime(artifact, threads, ROOT)

    def traced(ids: Sequence[int], threads: int) -> dict[str, np.ndarray]:
        from runtimes.states.onnx import trace

        return trace(artifact, ids, threads, ROOT)

    graphs = [item.path for item in artifact.manifest.outputs if item.path.endswith(".onnx")]
    return [
        Twin(
            path,
            opened,
            traced,
            partial(apart, artifact.path / inner, artifact.path / path),
        )
        for inner in graphs
        if str(PurePosixPath(inner).parent) == GRAPH_FOLDER
        for path in graphs
        if "/" not in path
    ]


def _chat_template(artifact: Artifact) -> Render | None:
    settings = tokenizer_settings(lambda name: read(artifact.path, name))
    text = chat_templates(artifact.path, settings).get(DEFAULT)
    if text is None:
        return None
    return jinja_template(template_source(artifact.path), text, special_texts(settings))


def _stops(artifact: Artifact) -> Stops:
    """transformers.js reads the same files as transformers."""
    stated = end_tokens(artifact.path)
    return Stops(END, stated, lambda expected: stated == expected)


def _statements(artifact: Artifact, _: Facts) -> Iterable[Statement]:
    from runtimes.formats.onnx.statements import statements

    return statements(artifact)


def _contents(artifact: Artifact, origin: Origin) -> Iterable[Content]:
    from runtimes.contents.onnx import contents

    return contents(artifact, origin)


READER = Reader(
    adapter=Adapter(  # on a CPU it computes float16 graphs in float32
        "runtimes.onnxruntime",
        ("onnxruntime",),
        "onnxruntime",
        device="cpu",
        activations="float32",
        real=True,
        in_process=True,
        code=None,
    ),
    others={
        "webgpu": WEBGPU,
        "onnxruntime-cuda": CUDA,
        "browser": BROWSER,
        "browser-webgpu": BROWSER_WEBGPU,
        "openvino": openvino.adapter("onnx", "onnxruntime", "OpenVINO"),
    },
    weights=_weights,
    states=_states,
    twins=_twins,
    chat_template=_chat_template,
    stops=_stops,
    statements=_statements,
    contents=_contents,
    deployments=(
        Deployment("browser, WebGPU with f16", activations="float16", device="gpu"),
        Deployment("ONNX Runtime on CPU, wasm", activations="float32", device="cpu"),
    ),
    marker="o",
    engine=Engine(
        modules=("engine-transformers.js", "worker-transformers.js"),
        brought=(),
        scripts=(
            "transformers.min.js",
            "ort-wasm-simd-threaded.asyncify.mjs",
            "ort-wasm-simd-threaded.asyncify.wasm",
        ),
        reads=(CONFIG, GENERATION, "tokenizer.json", SETTINGS, TEMPLATE_FILE, "onnx/*"),
        requirement=None,
    ),
)
