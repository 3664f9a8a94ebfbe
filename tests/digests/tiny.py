"""The tiny checkpoints in every type that is written here, and with every option that matters."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from tests.digests.checkpoints import write_checkpoint
from tests.digests.files import Digests, folder_digests

ONNX = "fp32,fp16,q8,int8,uint8,q4,q4f16,bnb4"
GGUF = "f32,f16,bf16,q8_0,q5_0,q5_1,q4_0,q4_1"
MLC = "q0f16,q0f32,q0bf16,q4f16_0,q4f16_1,q4f16_2,q4f32_1,q4bf16_1,q3f16_0,q3f16_1"


@dataclass(frozen=True)
class Call:
    """One call of `python -m export.<format>`."""

    form: str
    dtypes: str
    options: tuple[str, ...] = ()


PLAIN = (Call("onnx", ONNX), Call("gguf", GGUF))
OPTIONS = (
    Call("onnx", "q8", ("--target=native",)),
    Call("onnx", "q4", ("--symmetric", "--embedding=q4", "--target=native")),
    Call("onnx", "bnb4", ("--embedding=fp16",)),
    Call("onnx", "fp32", ("--graph=portable",)),
    Call("onnx", "q4f16", ("--graph=portable", "--residual-scale=0.25")),
    Call("gguf", "q4_0", ("--pure", "--tensor-type=attn_v=q8_0", "--tensor-type=ffn_.*=f16")),
    Call("gguf", "q5_1", ("--token-embedding-type=q4_1",)),
    Call("gguf", "q8_0", ("--split-max-tensors=9",)),
)
PLAIN_LLAMA = (Call("mlc", MLC), Call("mlc", "q0f32,q4f32_1", ("--raw-f32",)))
PLAIN_QWEN = (Call("mlc", "q0f16,q4f16_0"),)
CALLS = {
    "llama": (*PLAIN, *PLAIN_LLAMA, *OPTIONS),
    "llama-untied-biases": (*PLAIN, *OPTIONS),
    "mistral": PLAIN,
    "qwen2": (*PLAIN, *PLAIN_QWEN),
    "qwen3": (*PLAIN, *PLAIN_QWEN, *OPTIONS),
}


def tiny_digests(name: str, folder: Path) -> dict[str, Digests]:
    """Write a checkpoint below `folder` and export it: artifact → file → digest.

    The checkpoint's own files are the first entry: where these differ, so does all that follows.
    """
    checkpoint, out = write_checkpoint(folder / name, name), folder / "out"
    for call in CALLS[name]:
        arguments = ["-m", str(checkpoint), "-d", call.dtypes, "-o", str(out), *call.options]
        command = importlib.import_module(f"export.{call.form}.__main__").main
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 0, f"{name}, {call}: {result.output}"
    artifacts = sorted((out / name).glob("*/*"))
    return {
        "checkpoint": folder_digests(checkpoint),
        **{path.relative_to(out / name).as_posix(): folder_digests(path) for path in artifacts},
    }
