"""Where an artifact breaks: which file, tensor, key, layer and step, named in one line.

What is asked, from cheap to dear: the measurement (tokenizer, chat template, padding), metadata
against the checkpoint's config, stored weights against the checkpoint's, hidden states in the real
runtime against PyTorch's on the same weights, decoding against one pass.
"""

from __future__ import annotations

from runtimes.parity.localise.diagnose import TOKENS, Subject, Weighed, localise, weigh
from runtimes.parity.localise.result import (
    Cause,
    Component,
    Finding,
    LayerError,
    Localisation,
    TensorError,
)

__all__ = [
    "TOKENS",
    "Cause",
    "Component",
    "Finding",
    "LayerError",
    "Localisation",
    "Subject",
    "TensorError",
    "Weighed",
    "localise",
    "weigh",
]
