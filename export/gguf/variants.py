"""The GGUF variants: which storage type each class of tensors gets."""

from __future__ import annotations

from edgeproof.artifact import Precision, Variant
from export.checkpoint import open_checkpoint
from export.format import Check, Format, RecoveredDtypes
from export.gguf.exporter import write
from export.gguf.llama_cpp import PACKAGE
from export.gguf.llama_quantize import package_version
from export.gguf.looking import complete_from_checkpoint
from export.gguf.options import OPTIONS, with_options
from export.gguf.publication import PUBLICATION
from export.gguf.recipe import MIXTURES, RECOVERED, Recipe
from export.gguf.verification import check_files
from export.rounding.recipe import Rounding
from export.rounding.registry import LATTICE

AUTO = "auto"


def _variant(
    linear: str, precision: Precision, *, head: str | None = None, aliases: tuple[str, ...] = ()
) -> Variant[Recipe]:
    return Variant("gguf", linear.lower(), precision, Recipe(linear, head or linear), aliases)


def _tools(variant: Variant[Recipe]) -> dict[str, str]:
    """What the bytes of a variant depend on beside edgeproof: llama.cpp for its own types."""
    return {} if variant.recipe.direct else {PACKAGE: package_version()}


# Types as llama.cpp gives them: the first four as convert_hf_to_gguf.py --outtype, the next four as
# llama-quantize, where the output matrix keeps more bits. Where its rows divide into 256,
# llama-quantize would take Q6_K for it; Q8_0 stands in, so that these types need no llama.cpp
# (--output-tensor-type q6_k gives its very bytes). The mixtures are llama.cpp's own; the types of a
# recovered checkpoint are its recovery.json's.
FORMAT = Format(
    name="gguf",
    title="GGUF",
    variants=(
        _variant("F32", Precision.FP32, aliases=("fp32",)),
        _variant("F16", Precision.FP16, aliases=("fp16", "q016")),
        _variant("BF16", Precision.BF16),
        _variant("Q8_0", Precision.EIGHT_BIT),
        _variant("Q5_0", Precision.LOW_BIT, head="Q8_0"),
        _variant("Q5_1", Precision.LOW_BIT, head="Q8_0"),
        _variant("Q4_0", Precision.LOW_BIT, head="Q8_0"),
        _variant("Q4_1", Precision.LOW_BIT, head="Q8_0"),
        *(_variant(name, Precision.LOW_BIT) for name in MIXTURES),
        Variant(
            "gguf",
            RECOVERED.lower(),
            Precision.LOW_BIT,
            Recipe(RECOVERED, RECOVERED, rounding=Rounding(LATTICE)),
            (AUTO,),
        ),
    ),
    tools=(),
    variant_tools=_tools,
    open=open_checkpoint,
    write=write,
    options=OPTIONS,
    with_options=with_options,
    complete_from_checkpoint=complete_from_checkpoint,
    check=Check(
        help="Reopen each new GGUF file with llama.cpp's own reader and compare every tensor's"
        " SHA-256 with what was written, then load it in llama.cpp and evaluate a prompt.",
        run=check_files,
    ),
    engines={},
    example="python -m export.gguf --model bundled --dtype f16,q4_k_m",
    publication=PUBLICATION,
    runtimes=("llamacpp-gpu", "openvino"),
    recovered=RecoveredDtypes({AUTO: RECOVERED.lower()}, mixes=True),
)
