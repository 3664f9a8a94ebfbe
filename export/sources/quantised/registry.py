"""Which reader reads which `quant_method`, and what to do about those that none reads."""

from __future__ import annotations

from collections.abc import Mapping

from export.sources.quantised.awq import Awq
from export.sources.quantised.bitsandbytes import BitsAndBytes
from export.sources.quantised.compressed_tensors import CompressedTensors
from export.sources.quantised.fp8 import Fp8
from export.sources.quantised.gptq import Gptq
from export.sources.quantised.reader import Reader

READERS: Mapping[str, Reader] = {
    "gptq": Gptq(),
    "awq": Awq(),
    "compressed-tensors": CompressedTensors(),
    "bitsandbytes": BitsAndBytes(),
    "fp8": Fp8(),
    "fbgemm_fp8": Fp8(),
}
# What else than the usual helps.
FIXES: Mapping[str, str] = {
    "auto-round": "save it again with auto-round's format auto_gptq or auto_awq",
    "mxfp4": "load it in transformers with Mxfp4Config(dequantize=True) and save that",
}
USUAL = (
    "export the model that they were made from, or dequantise them in transformers"
    " (model.dequantize()) and save that"
)
