"""The CPU kernels of the decoder that TVM's own operators do not do well, as TIR.

Matrices are kept as panels of `LANES` output rows, [ceil(out / LANES), in, LANES], so that every
matmul is a stream of vector loads; rows that only fill up the last panel are 0. Weights are
converted to float32 where they are used; every activation and every accumulator is float32.

The parser reads the functions below as TVMScript: they run in TVM, never in Python.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from runtimes.tvm.model_config import DecoderShape
from runtimes.tvm.scheme import Groups

# One AVX-512 register, two AVX2 or four NEON registers of float32.
LANES = 16
# Rows of a matmul tile: ROWS × LANES accumulators stay in registers on AVX2 as well.
ROWS = 6
# Relax's operator pattern "opaque": never fused with its neighbours, which would undo the tiling.
OPAQUE = 8

PrimFunc = Any


def panels(outs: Any) -> Any:
    """Panels that hold `outs` output rows; works on integers and on symbolic sizes."""
    return (outs + LANES - 1) // LANES


def matmul(outs: int, ins: int, dtype: str) -> PrimFunc:
    """Y = x · weightᵀ for x float32 [n, ins]: float32 [n, outs].

    Tiles of ROWS rows while they last, then single rows: the same code serves prefill and decode.
    """
    blocks = panels(outs)

    @T.prim_func(private=True)
    def matmul(x_: T.handle, weight_: T.handle, y_: T.handle) -> None:
        T.func_attr({"op_pattern": OPAQUE, "tirx.noalias": True})
        n = T.int64()
        x = T.match_buffer(x_, (n, ins), "float32")
        weight = T.match_buffer(weight_, (blocks, ins, LANES), dtype)
        y = T.match_buffer(y_, (n, outs), "float32")

        @T.inline
        def multiply(block: Any, first: Any, rows: int) -> None:
            total = T.alloc_buffer((rows, LANES), "float32")
            for row in T.unroll(rows):
                for lane in T.vectorized(LANES):
                    total[row, lane] = T.float32(0)
            for k in T.serial(ins):
                for row in T.unroll(rows):
                    for lane in T.vectorized(LANES):
                        total[row, lane] = total[row, lane] + x[first + row, k] * T.cast(
                            weight[block, k, lane], "float32"
                        )
            for row in T.unroll(rows):
                for lane in T.vectorized(LANES):
                    if block * LANES + lane < outs:
                        y[first + row, block * LANES + lane] = total[row, lane]

        for block in T.parallel(blocks):
            for tile in T.serial(n // ROWS):
                multiply(block, tile * ROWS, ROWS)
            for row in T.serial(n % ROWS):
                multiply(block, n // ROWS * ROWS + row, 1)

    return matmul


def embed(vocab: int, hidden: int, dtype: str) -> PrimFunc:
    """Rows of the packed embedding for ids int32 [n]: float32 [n, hidden]."""
    blocks = panels(vocab)

    @T.prim_func(private=True)
    def embed(ids_: T.handle, weight_: T.handle, x_: T.handle) -> None:
        T.func_attr({"op_pattern": OPAQUE, "tirx.noalias": True})
        n = T.int64()
        ids = T.match_buffer(ids_, (n,), "int32")
        weight = T.match_buffer(weight_, (blocks, hidden, LANES), dtype)
        x = T.match_buffer(x_, (n, hidden), "float32")
        for i, k in T.grid(n, hidden):
            x[i, k] = T.cast(weight[ids[i] // LANES, k, ids[i] % LANES], "float32")

    return embed


def append_kv(shape: DecoderShape) -> PrimFunc:
    """Rotate the new keys and put keys and values into the KV cache, in place.

    qkv float32 [n, qkv_rows] holds the projections of positions start … start + n − 1; cosine and
    sine are float32 [positions, rotated / 2]. Channel d of those that rotate pairs with
    d + rotated / 2, as in transformers; the others follow as they are. The cache is float32: keys
    [blocks, kv_heads, head_dim, LANES], values [blocks, LANES, kv_heads, head_dim], position p in
    block p // LANES.
    """
    heads, kv_heads, dim, half = shape.heads, shape.kv_heads, shape.head_dim, shape.rotated // 2
    width, rest = shape.qkv_rows, shape.head_dim - shape.rotated

    @T.prim_func(private=True)
    def append_kv(
        qkv_: T.handle,
        cosine_: T.handle,
        sine_: T.handle,
        keys_: T.handle,
        values_: T.handle,
        start: T.int64,
    ) -> None:
        T.func_attr({"op_pattern": OPAQUE, "tirx.noalias": True})
        n, positions, blocks = T.int64(), T.int64(), T.int64()
        qkv = T.match_buffer(qkv_, (n, width), "float32")
        cosine = T.match_buffer(cosine_, (positions, half), "float32")
        sine = T.match_buffer(sine_, (positions, half), "float32")
        keys = T.match_buffer(keys_, (blocks, kv_heads, dim, LANES), "float32")
        values = T.match_buffer(values_, (blocks, LANES, kv_heads, dim), "float32")
        for i, head, d in T.grid(n, kv_heads, half):
            position = start + i
            column = (heads + head) * dim + d
            keys[position // LANES, head, d, position % LANES] = (
                qkv[i, column] * cosine[position, d] - qkv[i, column + half] * sine[position, d]
            )
            keys[position // LANES, head, d + half, position % LANES] = (
                qkv[i, column + half] * cosine[position, d] + qkv[i, column] * sine[position, d]
            )
        for i, head, d in T.grid(n, kv_heads, rest):
            keys[(start + i) // LANES, head, 2 * half + d, (start + i) % LANES] = qkv[
                i, (heads + head) * dim + 2 * half + d
            ]
        for i, head, d in T.grid(n, kv_heads, dim):
            values[(start + i) // LANES, (start + i) % LANES, head, d] = qkv[
                i, (heads + kv_heads + head) * dim + d
            ]

    return append_kv


def attend(shape: DecoderShape) -> PrimFunc:
    """Causal attention of the n newest positions over the cache: float32 [n, heads × head_dim].

    Takes what `append_kv` takes, after it; rotates the queries itself.
    """
    heads, kv_heads, dim, half = shape.heads, shape.kv_heads, shape.head_dim, shape.rotated // 2
    rest = shape.head_dim - shape.rotated
    width, query_width, shared = shape.qkv_rows, shape.query_rows, shape.heads // shape.kv_heads
    scale = shape.structure.multipliers.attention

    @T.prim_func(private=True)
    def attend(  # noqa: PLR0912  (an inner function would be inlined by the parser anyway)
        qkv_: T.handle,
        cosine_: T.handle,
        sine_: T.handle,
        keys_: T.handle,
        values_: T.handle,
        start: T.int64,
        mixed_: T.handle,
    ) -> None:
        T.func_attr({"op_pattern": OPAQUE, "tirx.noalias": True})
        n, positions, blocks = T.int64(), T.int64(), T.int64()
        qkv = T.match_buffer(qkv_, (n, width), "float32")
        cosine = T.match_buffer(cosine_, (positions, half), "float32")
        sine = T.match_buffer(sine_, (positions, half), "float32")
        keys = T.match_buffer(keys_, (blocks, kv_heads, dim, LANES), "float32")
        values = T.match_buffer(values_, (blocks, LANES, kv_heads, dim), "float32")
        mixed = T.match_buffer(mixed_, (n, query_width), "float32")
        # Heads outermost: each thread gets early and late rows alike.
        for task in T.parallel(heads * n):
            head = task // n
            i = task % n
            position = start + i
            query = T.alloc_buffer((dim,), "float32")
            score = T.alloc_buffer((blocks, LANES), "float32")
            lanes = T.alloc_buffer((LANES,), "float32")
            output = T.alloc_buffer((dim,), "float32")
            peak = T.alloc_buffer((1,), "float32")
            total = T.alloc_buffer((1,), "float32")
            for d in T.serial(half):
                query[d] = scale * (
                    qkv[i, head * dim + d] * cosine[position, d]
                    - qkv[i, head * dim + half + d] * sine[position, d]
                )
                query[half + d] = scale * (
                    qkv[i, head * dim + half + d] * cosine[position, d]
                    + qkv[i, head * dim + d] * sine[position, d]
                )
            for d in T.serial(rest):
                query[dim - rest + d] = scale * qkv[i, (head + 1) * dim - rest + d]
            for block in T.serial(position // LANES + 1):
                for lane in T.vectorized(LANES):
                    lanes[lane] = T.float32(0)
                for d in T.serial(dim):
                    for lane in T.vectorized(LANES):
                        lanes[lane] = lanes[lane] + query[d] * keys[block, head // shared, d, lane]
                for lane in T.vectorized(LANES):
                    score[block, lane] = lanes[lane]
            peak[0] = score[0, 0]
            for past in T.serial(position + 1):
                peak[0] = T.max(peak[0], score[past // LANES, past % LANES])
            total[0] = T.float32(0)
            for d in T.vectorized(dim):
                output[d] = T.float32(0)
            for past in T.serial(position + 1):
                lanes[0] = T.exp(score[past // LANES, past % LANES] - peak[0])
                total[0] = total[0] + lanes[0]
                for d in T.vectorized(dim):
                    output[d] = (
                        output[d]
                        + lanes[0] * (values[past // LANES, past % LANES, head // shared, d])
                    )
            for d in T.vectorized(dim):
                mixed[i, head * dim + d] = output[d] / total[0]

    return attend


def pack(dtype: str) -> PrimFunc:
    """An unquantised matrix [outs, ins] as panels, in its own dtype."""

    @T.prim_func(private=True, s_tir=True)
    def pack(weight_: T.handle, packed_: T.handle) -> None:
        T.func_attr({"op_pattern": OPAQUE, "tirx.noalias": True})
        outs, ins = T.int64(), T.int64()
        weight = T.match_buffer(weight_, (outs, ins), dtype)
        packed = T.match_buffer(packed_, ((outs + LANES - 1) // LANES, ins, LANES), dtype)
        for block in T.parallel((outs + LANES - 1) // LANES):
            for k, lane in T.grid(ins, LANES):
                with T.sblock("pack"):
                    b, i, j = T.axis.remap("SSS", [block, k, lane])
                    packed[b, i, j] = T.if_then_else(
                        b * LANES + j < outs, weight[b * LANES + j, i], T.cast(0, dtype)
                    )

    return pack


def dequantize(groups: Groups, dtype: str) -> PrimFunc:
    """Codes and scales as panels of weights: (code − zero) × scale, rounded to the model dtype.

    This is the arithmetic of MLC's own kernels (`group_quantization.py` in mlc_llm).
    """
    bits, group, zero, per_word = groups.bits, groups.group, groups.zero, groups.per_word
    mask = 2**groups.bits - 1

    @T.prim_func(private=True)
    def dequantize(words_: T.handle, scales_: T.handle, ins: T.int64, packed_: T.handle) -> None:
        T.func_attr({"op_pattern": OPAQUE, "tirx.noalias": True})
        outs, width, count = T.int64(), T.int64(), T.int64()
        words = T.match_buffer(words_, (outs, width), "uint32")
        scales = T.match_buffer(scales_, (outs, count), dtype)
        packed = T.match_buffer(packed_, ((outs + LANES - 1) // LANES, ins, LANES), dtype)
        for block in T.parallel((outs + LANES - 1) // LANES):
            for k, lane in T.grid(ins, LANES):
                packed[block, k, lane] = T.if_then_else(
                    block * LANES + lane < outs,
                    (
                        T.cast(
                            T.bitwise_and(
                                T.shift_right(
                                    words[block * LANES + lane, k // per_word],
                                    T.cast(k % per_word * bits, "uint32"),
                                ),
                                T.uint32(mask),
                            ),
                            dtype,
                        )
                        - T.cast(zero, dtype)
                    )
                    * scales[block * LANES + lane, k // group],
                    T.cast(0, dtype),
                )

    return dequantize
