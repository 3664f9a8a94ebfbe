"""Which faults are planted where: in which types, and in which models."""

from __future__ import annotations

from tests.faults.at_run_time import AT_RUN_TIME
from tests.faults.catalogue import FAULTS
from tests.faults.fault import FORMATS, FOUR_BIT
from tests.faults.run import Case, cases

# Mistakes that do not depend on how a type stores values: they are planted in 4-bit types too.
IN_FOUR_BITS = (
    "swapped q/k",
    "wrong rope order",
    "transposed matrix",
    "shifted embedding",
    "truncated vocabulary",
    "flipped scale",
    "swapped layers",
    "norm left out",
    "swapped gate/up",
    "wrong eps",
)
# Not the bundled model's family: norms of queries and keys, other graphs, other names. MLC's only
# one here is a Llama, so it gets one with a head of its own and as many keys as queries.
SECOND = {"onnx": "qwen3", "gguf": "qwen3", "mlc": "untied"}
CLEAN = (
    Case("onnx", variant="fp16"),
    Case("gguf", variant="f16"),
    Case("mlc", variant="q0f16"),
    Case("onnx", variant="q8"),
    Case("gguf", variant="q8_0"),
)


def in_four_bits() -> list[Case]:
    """Faults in the 4-bit type of every format, and that type without a fault."""
    chosen = [fault for fault in FAULTS if fault.name in IN_FOUR_BITS]
    return [
        *(Case(form, None, variant) for form, variant in FOUR_BIT.items()),
        *(
            Case(case.form, case.fault, FOUR_BIT[case.form])
            for case in cases(chosen)
            if case.stored != FOUR_BIT[case.form]
        ),
    ]


def on_second_model() -> list[Case]:
    """Every fault that needs no model of its own, and no fault, in another model."""
    return [
        *(Case(form, on=SECOND[form]) for form in FORMATS),
        *(Case(c.form, c.fault, on=SECOND[c.form]) for c in cases(FAULTS) if not c.model),
    ]


def at_run_time() -> list[Case]:
    """What a runtime is told, on the usual model."""
    return cases(AT_RUN_TIME)


def everything() -> list[Case]:
    """All cases of `make faults`, but the clean exports on parts of the text."""
    return [
        *CLEAN,
        *cases(FAULTS),
        *at_run_time(),
        *in_four_bits(),
        *on_second_model(),
    ]
