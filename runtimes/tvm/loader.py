"""The loading of matrices as a Relax module: stored arrays in, panels of the decoder out.

It depends on a scheme but on no shape, so one compiled loader serves every model.
"""

from __future__ import annotations

from typing import Any

from tvm.ir import IRModule
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from runtimes.tvm import kernels
from runtimes.tvm.kernels import LANES, panels
from runtimes.tvm.scheme import Groups


class Loader(nn.Module):  # type: ignore[misc]
    """Matrices in the model dtype `dtype`, quantised in `groups` if that is not None."""

    def __init__(self, dtype: str, groups: Groups | None) -> None:
        self.dtype, self.groups = dtype, groups

    def pack(self, weight: Tensor) -> Tensor:
        """A stored, unquantised matrix → panels."""
        outs, ins = weight.shape
        shape = (panels(outs), ins, LANES)
        packed = Tensor.placeholder(shape, self.dtype)
        return op.tensor_ir_op(kernels.pack(self.dtype), "pack", [weight], packed)

    def dequantize(self, words: Tensor, scales: Tensor, ins: Any) -> Tensor:
        """Stored words and scales, [out, …], of a matrix with `ins` inputs → panels."""
        assert self.groups is not None  # `lower_loader` asks for it only then
        kernel = kernels.dequantize(self.groups, self.dtype)
        packed = Tensor.placeholder((panels(words.shape[0]), ins, LANES), self.dtype)
        return op.tensor_ir_op(kernel, "dequantize", [words, scales, ins], packed)

    def dequantize_kn(self, words: Tensor, scales: Tensor, ins: Any) -> Tensor:
        """The same for words and scales that are stored […, out]."""
        return self.dequantize(op.permute_dims(words), op.permute_dims(scales), ins)


def lower_loader(dtype: str, groups: Groups | None) -> IRModule:
    """The loader as IR, not yet compiled: `pack`, and where there are groups `dequantize[_kn]`."""
    tensor = nn.spec.Tensor
    plain = {"$": {"param_mode": "none", "effect_mode": "none"}}
    signatures = {"pack": {"weight": tensor(["outs", "ins"], dtype), **plain}}
    if groups is not None:
        for name, axes in (("dequantize", slice(None)), ("dequantize_kn", slice(None, None, -1))):
            signatures[name] = {
                "words": tensor(["outs", "width"][axes], "uint32"),
                "scales": tensor(["outs", "count"][axes], dtype),
                "ins": nn.spec.Int(),
                **plain,
            }
    module, _ = Loader(dtype, groups).export_tvm(signatures)
    return module
