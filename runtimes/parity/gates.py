"""The gates: what an artifact of each precision must reach, every number with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgeproof.artifact import Precision
from edgeproof.errors import InputError
from runtimes.parity import metrics
from runtimes.parity.metrics import FP16_HEADROOM


@dataclass(frozen=True)
class Gate:
    """One requirement: a metric at most, or at least, its limit."""

    metric: str
    limit: float
    reason: str
    """Why this number."""
    at_least: bool = False
    """Whether the metric must be at least the limit, not at most."""
    of_weights: bool = False
    """Whether it is asked of the file's weights in fp32 arithmetic, not of the runtime.

    What the runtime makes of it is measured and noted all the same.
    """
    counted: int = 0
    """Above 0, a share must be without error in so many positions at least: no interval gets to 1.
    """

    @property
    def text(self) -> str:
        """The requirement as a reader writes it."""
        if self.counted:
            return f"no error of {self.metric} in at least {self.counted:,} positions"
        return f"{self.metric} {'≥' if self.at_least else '≤'} {self.limit:g}"


CLEAR = "positions where the reference itself is undecided are not counted"
# So many independent ones bound what they do not show at 0.3 %.
FEWEST_CLEAR = 1_000
NO_FLIP = Gate(
    "clear_top1",
    1.0,
    "rounding as fine as this does not bridge the nat between two tokens, so one flip is a fault;"
    " no interval gets to 100 %, so flips are counted, and what that may hide is told",
    at_least=True,
    counted=FEWEST_CLEAR,
)
# Asked of the weights: at temperature 0.2 logit noise counts five times, and llama.cpp's 8-bit
# activations alone cost q8_0 more than its weights do.
SAMPLED = "{} of 100 sampled tokens may change"

OF_THE_PLAN = "set by the plan"

HEADROOM = Gate(
    FP16_HEADROOM.name,
    2.0,
    "65504 / the largest value: below 2 other text may overflow float16",
    at_least=True,
)

# Figures: noise floors of the real SmolLM2-135M, reproduced by `make export-all`.
GATES: dict[Precision, tuple[Gate, ...]] = {
    Precision.FP32: (
        Gate("mean_kl", 1e-6, "another summation order alone costs about 1e-10"),
        NO_FLIP,
    ),
    Precision.FP16: (
        Gate("mean_kl", 2e-4, "rounding the weights costs 2e-6, fp16 kernels some 1e-5"),
        Gate("p99_kl", 5e-3, "one bad position in a hundred would be seen by users"),
        NO_FLIP,
    ),
    Precision.BF16: (
        Gate("mean_kl", 1e-3, "weights cost 6e-5; llama.cpp also rounds activations: 4e-4"),
        NO_FLIP,
    ),
    Precision.EIGHT_BIT: (
        Gate("mean_kl", 1e-2, "q8_0 weights cost 2e-3, 8-bit activations 5e-3"),
        Gate("clear_top1", 0.99, CLEAR, at_least=True),
        Gate("acceptance", 0.97, SAMPLED.format(3), at_least=True, of_weights=True),
    ),
    Precision.LOW_BIT: (
        Gate("mean_kl", 0.05, "about what a 5-bit K-quant of this model costs"),
        Gate("clear_top1", 0.97, CLEAR, at_least=True),
        Gate("acceptance", 0.93, SAMPLED.format(7), at_least=True, of_weights=True),
    ),
}

# fp16 on a GPU: sums are float16 too.
FP16_ON_GPU = (
    Gate("mean_kl", 0.02, "every product and sum is rounded to 11 bits, not only the weights"),
    NO_FLIP,
)

# ggml's CUDA backend lets cuBLAS round the factors of float32 products to TF32 (ggml-cuda's
# `cublas_handle`), and multiplies float16 in float16.
TF32 = (
    Gate("mean_kl", 0.02, "factors are rounded to 11 bits on a GPU; WebGPU's limit, not measured"),
    NO_FLIP,
)
FP16_ON_CUDA = (
    Gate("mean_kl", 0.02, "sums may be float16 too; WebGPU's limit, not measured on CUDA"),
    NO_FLIP,
)

# What a runtime's own arithmetic makes classes of their own: "<precision>-<runtime>".
GATES_ON: dict[tuple[Precision, str], tuple[Gate, ...]] = {
    (Precision.FP16, "webgpu"): FP16_ON_GPU,
    (Precision.FP16, "browser-webgpu"): FP16_ON_GPU,
    (Precision.FP16, "onnxruntime-cuda"): FP16_ON_CUDA,
    (Precision.FP32, "llamacpp-gpu"): TF32,
    (Precision.FP16, "llamacpp-gpu"): TF32,
    (Precision.BF16, "llamacpp-gpu"): TF32,
}


def gates_for(
    precision: Precision,
    overrides: Mapping[str, Mapping[str, float]],
    runtime: str | None = None,
    *,
    float16: bool = False,
) -> tuple[Gate, ...]:
    """The class's gates with a plan's limits; `runtime` is one that was asked for.

    A plan's limit takes the place of the class's own, or is a gate more, on any of `METRICS`. It is
    one for the interval, also in place of a count. With `float16` users' runtimes compute in it,
    and headroom is asked too.

    Raises:
        InputError: a plan names an unknown class or metric.
    """
    classes = {item.value: gates for item, gates in GATES.items()}
    classes |= {f"{item.value}-{name}": gates for (item, name), gates in GATES_ON.items()}
    headroom = (HEADROOM,) if float16 else ()
    for kind, limits in overrides.items():
        if kind not in classes:
            raise InputError(f"gates: unknown class {kind!r}")
        known = {gate.metric for gate in (*classes[kind], HEADROOM)}
        known |= {m.name for m in metrics.METRICS}
        for metric in limits:
            if metric not in known:
                raise InputError(f"gates: class {kind!r} has no gate {metric!r}")
    executed = f"{precision.value}-{runtime}"
    own = executed if executed in classes else precision.value
    chosen = overrides.get(own, {})
    further = [m for m in metrics.METRICS if m.name not in {gate.metric for gate in classes[own]}]
    return (
        *(
            replace(gate, limit=chosen[gate.metric], reason=OF_THE_PLAN, counted=0)
            if gate.metric in chosen
            else gate
            for gate in (*classes[own], *headroom)
        ),
        *(
            Gate(m.name, chosen[m.name], OF_THE_PLAN, at_least=m.more_is_better)
            for m in further
            if m.name in chosen
        ),
    )
