"""The code that decides what the original says of a text: what is kept of that is of one such code.

It is the part that runs PyTorch, makes prompts and draws: of all that is imported for it, most says
nothing of the result, and capturing anew takes minutes.
"""

from __future__ import annotations

from functools import cache

from edgeproof.files.code import code_digest

PARTS = {
    "edgeproof": ("checkpoints", "templates"),
    "runtimes": (
        "chat_templates.py", "norms.py", "peaks.py", "pytorch", "said.py", "sequence.py",
        "parity/answerable.py", "parity/decoding.py", "parity/divergence.py",
        "parity/long_range.py", "parity/order.py", "parity/prefill.py", "parity/reference.py",
        "parity/samples.py", "parity/suite.py", "weights/fused.py", "weights/safetensors_file.py",
        "weights/stored.py",
    ),
}  # fmt: skip


@cache
def original_code() -> str:
    """Hex SHA-256 of each package's part of it, for keys."""
    return " ".join(str(code_digest(package, *names)) for package, names in PARTS.items())
