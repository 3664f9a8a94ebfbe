"""Reading ONNX folders as ONNX Runtime, transformers.js and ONNX Runtime GenAI do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from runtimes.adapter import Adapter
from runtimes.chat_templates import Render, jinja_template
from runtimes.config_facts import CONFIG, END, GENERATION, Facts, Statement, end_tokens
from runtimes.contents import Content, Origin
from runtimes.formats.reader import Deployment, Engine, Reader, Stops, Twin

SETTINGS, TEMPLATE_FILE = "tokenizer_config.json", "chat_template.jinja"

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
    from runtimes.onnxruntime import ROOT, open_runtime
    from runtimes.states.onnx import trace

    paths = (item.path for item in artifact.manifest.outputs)
    return [
        Twin(
            path,
            lambda threads: open_runtime(artifact, threads, ROOT),
            lambda ids, threads: trace(artifact, ids, threads, ROOT),
        )
        for path in paths
        if path.endswith(".onnx") and "/" not in path
    ]


def _chat_template(artifact: Artifact) -> Render | None:
    settings = read_json(artifact.path / SETTINGS)
    special = {
        key: value["content"] if isinstance(value, dict) else value
        for key, value in settings.items()
        if key.endswith("_token") and isinstance(value, str | dict)
    }
    file = artifact.path / TEMPLATE_FILE
    if file.exists():
        return jinja_template(file, file.read_text("utf-8"), special)
    text = settings.get("chat_template")
    if isinstance(text, list):
        text = {item["name"]: item["template"] for item in text}.get("default")
    return None if text is None else jinja_template(artifact.path / SETTINGS, text, special)


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
    others={"webgpu": WEBGPU, "browser": BROWSER, "browser-webgpu": BROWSER_WEBGPU},
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
