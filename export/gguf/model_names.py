"""Names that llama.cpp takes for more than a name.

Source: llama.cpp, src/llama-vocab.cpp, "set attributes by model/tokenizer/architecture name".
"""

from __future__ import annotations

from collections.abc import Collection

from edgeproof.errors import InputError

# What is in a name → the tokens that llama.cpp then looks up; without one of them it ends loading.
EXPECTED = {
    "phi-3": ("</s>", "<unk>", "<s>", "<|endoftext|>"),
    "phi3": ("</s>", "<unk>", "<s>", "<|endoftext|>"),
}


def check_name(name: str, tokens: Collection[str]) -> None:
    """Refuse a model's name with which llama.cpp would not open the file.

    Raises:
        InputError: naming what the vocabulary has not.
    """
    for part, expected in EXPECTED.items():
        missing = [text for text in expected if text not in tokens]
        if part in name.lower() and missing:
            raise InputError(
                f"the name {name!r}: llama.cpp takes it for {part} and does not open the file"
                f" without its token {missing[0]!r}; export with another --name"
            )
