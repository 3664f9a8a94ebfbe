"""Execute an exported MLC artifact on the CPU with TVM, from nothing but the artifact's folder.

Memory: the weights stay in the scheme's model dtype (two bytes a weight for `q4f16_1`), converted
to float32 inside the matmul; activations, KV cache and accumulation are float32. So what differs
from PyTorch float32 is the weights' own error. `decoder` is the graph, `kernels` its arithmetic,
`library` compiles it once per shape, `loader` and `weights` bring the shards into memory.
"""

from __future__ import annotations

from edgeproof.artifact import Artifact
from runtimes.protocol import Runtime


def open_runtime(artifact: Artifact, threads: int) -> Runtime:
    """Open an MLC artifact: load its shards, compile its decoder or take it from the cache.

    TVM's thread pool belongs to the process: the last runtime opened sets its size. Its threads
    sleep while nothing runs, so PyTorch or llama.cpp in the same process are not slowed down.

    Args:
        artifact: an artifact of format `mlc`.
        threads: worker threads, the calling one included.

    Raises:
        InputError: the artifact is incomplete or inconsistent.
    """
    from runtimes.tvm.runtime import TvmRuntime

    return TvmRuntime(artifact, threads)
