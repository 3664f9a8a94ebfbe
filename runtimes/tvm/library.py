"""Compile for this CPU, once: shared libraries in the cache folder.

There is one per decoder shape and model dtype, and a small one per kind of groups for the loading
of weights, so that schemes of one dtype share their decoder. A cached library is found by the hash
of everything that it depends on, this adapter's source included, and it appears under its name
complete. TVM links it with the system's C compiler; where there is none, it is compiled in memory
each time.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tvm
from tvm import relax
from tvm.ir import IRModule
from tvm.support import cc
from tvm.target import codegen

from edgeproof.files.cache import cache_folder
from edgeproof.files.once import once
from runtimes.tvm.decoder import lower
from runtimes.tvm.loader import lower_loader
from runtimes.tvm.model_config import DecoderShape
from runtimes.tvm.probe import lower_probe
from runtimes.tvm.scheme import Scheme

SOURCES = (
    "decoder.py", "kernels.py", "library.py", "loader.py", "model_config.py", "probe.py",
    "scheme.py",
)  # fmt: skip


def open_decoder(shape: DecoderShape, dtype: str) -> relax.VirtualMachine:
    """The compiled decoder for weights in `dtype`; depth and context are no part of it."""
    return _open({"decoder": _dimensions(shape), "dtype": dtype}, lambda: lower(shape, dtype))


def open_probe(shape: DecoderShape, dtype: str) -> relax.VirtualMachine:
    """The compiled layer that shows what happens inside, see `runtimes.tvm.probe`."""
    return _open({"probe": _dimensions(shape), "dtype": dtype}, lambda: lower_probe(shape, dtype))


def open_loader(scheme: Scheme) -> relax.VirtualMachine:
    """The compiled `pack`, `dequantize` and `dequantize_kn` of a scheme."""
    groups = scheme.groups and replace(scheme.groups, transposed=False)
    parts = {"loader": groups and asdict(groups), "dtype": scheme.dtype}
    return _open(parts, lambda: lower_loader(scheme.dtype, groups))


def _dimensions(shape: DecoderShape) -> str:
    """All that the code depends on: not the layers' number nor angles, nor names."""
    layer = replace(shape.structure, layers=())
    return repr(replace(shape, layers=1, context=1, structure=layer, modules={}, states={}))


def _open(parts: Mapping[str, Any], lowered: Callable[[], IRModule]) -> relax.VirtualMachine:
    """A Relax virtual machine on the CPU, from the cache if it is there."""
    target = host_target()
    path = cache_folder() / "tvm" / f"{library_key(parts, target)}.so"

    def make() -> Any:
        executable = relax.build(lowered(), target=target)
        _store(executable, path)
        return _cached(path) or executable

    return relax.VirtualMachine(once(path, lambda: _cached(path), make), tvm.cpu())


def host_target() -> tvm.target.Target:
    """LLVM for exactly this machine's processor."""
    return tvm.target.Target({"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()})


def library_key(parts: Mapping[str, Any], target: tvm.target.Target) -> str:
    """SHA-256 of what the library's code depends on."""
    everything = {
        **parts,
        "tvm": tvm.__version__,
        "target": str(target),
        "triple": codegen.llvm_get_system_triple(),
    }
    digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode())
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


def _cached(path: Path) -> Any:
    """The cached library; None where it is absent, damaged or may not be executed."""
    if not path.exists():
        return None
    try:
        return tvm.runtime.load_module(str(path))
    except RuntimeError:  # the dynamic loader's refusal
        return None


def _store(executable: Any, path: Path) -> None:
    """Link into the cache, where there is a C compiler and room for it."""
    if cc.get_cc() is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as folder:
            built = Path(folder) / path.name
            executable.export_library(str(built), workspace_dir=folder)
            built.replace(path)
    except (OSError, RuntimeError):  # RuntimeError: the compiler's own failure
        return
