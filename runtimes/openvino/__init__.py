"""OpenVINO: ONNX graphs, and GGUF files as OpenVINO GenAI reads them."""

from __future__ import annotations

from runtimes.adapter import Adapter

EXTRA = "openvino"


def adapter(module: str, package: str, place: str) -> Adapter:
    """One of the modules here, which imports this package beside OpenVINO's own.

    `place` is what users have it in, as people name it.
    """
    return Adapter(
        f"{__name__}.{module}",
        ("openvino", package),
        EXTRA,
        device="cpu",
        activations="float32",
        real=True,
        in_process=True,
        code=None,
        place=place,
    )
