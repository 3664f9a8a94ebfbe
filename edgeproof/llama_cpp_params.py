"""How llama.cpp is asked to load a model: on the CPU, and not by code that ends the process."""

from __future__ import annotations

from typing import Any


def model_params(api: Any) -> Any:
    """`llama_model_params` of llama-cpp-python's low-level `api`, which is loaded."""
    params = api.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = not crashes_in_amx(api.llama_print_system_info().decode())
    return params


def crashes_in_amx(system: str) -> bool:
    """Whether a llama.cpp that says so of itself has code for Intel's AMX, which crashes.

    As GCC compiles it (ggml-org/llama.cpp issue 20824, pull request 26954), every quantised matrix
    that is kept in AMX's layout ends the process. Without such buffers nothing is kept in others'
    layouts either, and quantised weights are read slower.
    """
    return "AMX_INT8 = 1" in system
