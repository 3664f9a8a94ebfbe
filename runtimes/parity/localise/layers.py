"""Hidden states against PyTorch's: how far each layer is off, and the first step that is wrong.

A step's own error is measured given the runtime's own input to it, with the artifact's own weights:
what came before and what rounding the weights costs is not in it. For a sound file it is the
runtime's rounding, which is alike in all layers; a fault stands out wherever it is, also behind
steps that are off themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeproof.artifact import Artifact, Precision
from edgeproof.families import Role
from edgeproof.families.structure import Structure
from runtimes.parity.localise.errors import relative_error
from runtimes.parity.localise.names import COMPONENTS
from runtimes.parity.localise.result import Cause, Component, Finding, LayerError
from runtimes.states import LAST_NORM, LOGITS, residual

States = Mapping[str, np.ndarray]
# Steps that add no product: their error is a float's, or what they are given.
ROPE_OF = {"self_attn.q_rope": "self_attn.q_proj", "self_attn.k_rope": "self_attn.k_proj"}
LIGHT = {
    Component.EMBEDDING,
    Component.INPUT_NORM,
    Component.ATTENTION_OUT_NORM,
    Component.MLP_NORM,
    Component.MLP_OUT_NORM,
    Component.FINAL_NORM,
}
# ONNX shows rotated keys as it keeps them for the next step, and what attention made of its own.
KEPT, ATTENDED = "self_attn.k_rope", "self_attn.o_proj.input"
END = "end"  # the residual stream after a layer


@dataclass(frozen=True)
class Flow:
    """How states follow from each other in a layer.

    Attributes:
        taken: state → the modules that take it.
        middle: the residual stream between attention and MLP.
        last: what is added to it, times `factor`.
        components: state → the part of the decoder that makes it, in the order of computation.
    """

    taken: Mapping[str, tuple[str, ...]]
    middle: str
    last: str
    components: Mapping[str, Component]
    factor: float = 1.0


PRE_NORMS = Flow(
    {
        "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attn.o_proj.input": ("self_attn.o_proj",),
        "post_attention_layernorm.input": ("post_attention_layernorm",),
        "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down_proj.input": ("mlp.down_proj",),
    },
    "post_attention_layernorm.input",
    "mlp.down_proj",
    COMPONENTS,
)
POST_NORMS = Flow(
    {
        "self_attn.o_proj.input": ("self_attn.o_proj",),
        "post_attention_layernorm.input": ("post_attention_layernorm",),
        "mlp.gate_proj.input": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down_proj.input": ("mlp.down_proj",),
        "mlp.down_proj": ("post_feedforward_layernorm",),
    },
    "mlp.gate_proj.input",
    "post_feedforward_layernorm",
    {
        **COMPONENTS,
        "post_attention_layernorm": Component.ATTENTION_OUT_NORM,
        "mlp.gate_proj.input": Component.ATTENTION_OUT_NORM,
    },
)
# (norms before attention and MLP, norms after them) → the flow.
FLOWS = {(2, 0): PRE_NORMS, (0, 2): POST_NORMS}


@dataclass(frozen=True)
class Limits:
    """Largest relative errors of a sound step: of norms and lookups, of everything else.

    `outlier` is how many times the median of the same step in all layers it may be, where it is
    below that limit and not far below.
    """

    light: float
    heavy: float
    outlier: float = 10.0  # measured up to 2.5


# Measured on the real 135M, worst layer: float32 1e-6; fp16 in ONNX Runtime 3e-4 and 1.6e-3; 8-bit
# activations in llama.cpp and MatMulNBits 3e-7 and 0.05. Each with room for other models.
LIMITS = {
    Precision.FP32: Limits(1e-4, 1e-3),
    Precision.FP16: Limits(5e-3, 0.02),
    Precision.BF16: Limits(0.02, 0.1),
    Precision.EIGHT_BIT: Limits(5e-3, 0.25),
    Precision.LOW_BIT: Limits(5e-3, 0.25),
}
# One scale for all activations of a call: measured up to 0.98 where one channel is huge, and not
# alike in all layers.
DYNAMIC_LIMITS = Limits(5e-3, 1.2, float("inf"))
FAR_BELOW = 0.05  # of a limit
# The rotary embedding turns what it is given; it makes no error larger.
ROPE_GAIN = 3.0


@dataclass(frozen=True)
class Step:
    """One step of the model and its own error."""

    layer: int | None
    name: str
    component: Component
    error: float


def limits_of(artifact: Artifact) -> Limits:
    """What the artifact's arithmetic explains."""
    variant = artifact.manifest.variant
    if variant.facts.dynamic:
        return DYNAMIC_LIMITS
    return LIMITS[variant.precision]


def stream(states: States) -> list[np.ndarray]:
    """The residual stream before each layer and before the last norm."""
    layers = 0
    while residual(layers) in states:
        layers += 1
    return [*(states[residual(layer)] for layer in range(layers)), states[f"{LAST_NORM}.input"]]


def flow_of(structure: Structure | None) -> Flow | None:
    """How states follow from each other in that decoder; None where that is not known here."""
    if structure is None:
        return PRE_NORMS
    before = {Role.INPUT_NORM, Role.MLP_NORM} & structure.norms.keys()
    after = {Role.ATTENTION_OUT_NORM, Role.MLP_OUT_NORM} & structure.norms.keys()
    sides = (len(before), len(after))
    if sides not in FLOWS or not structure.gated:
        return None
    return replace(FLOWS[sides], factor=structure.multipliers.residual)


def given(got: States, flow: Flow) -> dict[str, np.ndarray]:
    """What PyTorch's modules are given of the runtime's states, as far as it shows them."""
    streams = stream(got)
    taken = {LAST_NORM: streams[-1]}
    for layer, rows in enumerate(streams[:-1]):
        prefix = f"model.layers.{layer}"
        taken[prefix] = rows
        for source, modules in flow.taken.items():
            if f"{prefix}.{source}" in got:
                for module in modules:
                    taken[f"{prefix}.{module}"] = got[f"{prefix}.{source}"]
    return taken


def layer_errors(got: States, original: States, own: Sequence[Step]) -> tuple[LayerError, ...]:
    """Errors of the residual stream after each layer, and of the logits."""
    alone: dict[str, float] = {}
    for step in own:
        place = "embedding" if step.component is Component.EMBEDDING else "logits"
        place = place if step.layer is None else f"layer {step.layer}"
        alone[place] = max(alone.get(place, 0.0), step.error)
    totals = [*map(relative_error, stream(got), stream(original))]
    totals.append(relative_error(got[LOGITS], original[LOGITS]))
    return tuple(
        LayerError(place, total, alone[place]) for place, total in zip(alone, totals, strict=True)
    )


def own_steps(got: States, forced: States, flow: Flow) -> list[Step]:
    """Own error of every step that the runtime shows, in the order of computation.

    `forced` are the states of PyTorch with the artifact's weights, its modules `given` the
    runtime's: what a layer would take is there as it would be.
    """
    streams = stream(got)
    embedded = relative_error(streams[0], forced[residual(0)])
    steps = [Step(None, END, Component.EMBEDDING, embedded)]
    for layer in range(len(streams) - 1):
        prefix = f"model.layers.{layer}."
        for name, component in flow.components.items():
            if prefix + name in got:
                error = relative_error(got[prefix + name], forced[prefix + name])
                steps.append(Step(layer, name, component, error))
        middle = got.get(prefix + flow.middle, forced[prefix + flow.middle])
        after = middle + np.float32(flow.factor) * forced[prefix + flow.last]
        error = relative_error(streams[layer + 1], after)
        steps.append(Step(layer, END, flow.components[flow.last], error))
    if LAST_NORM in got:
        error = relative_error(got[LAST_NORM], forced[LAST_NORM])
        steps.append(Step(None, LAST_NORM, Component.FINAL_NORM, error))
    error = relative_error(got[LOGITS], forced[LOGITS])
    return [*steps, Step(None, LOGITS, Component.HEAD, error)]


def first_fault(steps: Sequence[Step], limits: Limits) -> Finding | None:
    """The first step whose own error the arithmetic does not explain."""
    errors = {(step.layer, step.name): step.error for step in steps}
    medians = {
        name: float(np.median([step.error for step in steps if step.name == name]))
        for name in {step.name for step in steps if step.layer is not None}
    }

    def wrong(step: Step) -> bool:
        limit = limits.light if step.component in LIGHT else limits.heavy
        if step.name in ROPE_OF:
            given = errors.get((step.layer, ROPE_OF[step.name]))
            limit = limits.heavy if given is None else max(limits.light, ROPE_GAIN * given)
        usual = medians.get(step.name, step.error)
        stands_out = step.error > limits.outlier * usual and step.error > FAR_BELOW * limit
        return step.error > limit or stands_out

    faulty = [step for step in steps if wrong(step)]
    if not faulty:
        return None
    first = faulty[0]
    attended = (first.layer, ATTENDED)
    if first.name == KEPT and attended in errors.keys() - {(s.layer, s.name) for s in faulty}:
        text = f"layer {first.layer} keeps other keys than it attends to: {_size(first)}"
        return Finding(Cause.KV_CACHE, text, first.layer, Component.ATTENTION)
    return Finding(Cause.GRAPH, _say(first, faulty, steps), first.layer, first.component)


def _say(first: Step, faulty: Sequence[Step], steps: Sequence[Step]) -> str:
    where = first.component.value
    if first.layer is not None:
        where = f"layer {first.layer}, {where}"
    text = f"hidden states go wrong at {where}: {_size(first)}"
    text += ", though given the right input and weights"
    layers = {step.layer for step in steps if step.layer is not None}
    hit = {step.layer for step in faulty if step.component is first.component} - {None}
    if first.layer is not None and len(layers) > 1:
        text += f" (in {len(hit)} of {len(layers)} layers)"
    return text


def _size(step: Step) -> str:
    return "NaN or infinite" if np.isinf(step.error) else f"off by {step.error:.2g} of their size"
