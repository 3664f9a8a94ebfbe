"""A layer that shows what happens inside: the decoder's own modules and kernels, watched.

It is compiled only when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.ir import IRModule
from tvm.relax.frontend.nn import Tensor

from edgeproof.families import Role
from edgeproof.families.structure import NORM_NAMES
from runtimes.tvm.decoder import Decoder, signatures
from runtimes.tvm.model_config import DecoderShape

# The modules of a layer that are watched, by role; what some of them take is shown as well.
WATCHED = {
    Role.INPUT_NORM: False,
    Role.QUERY: False,
    Role.OUTPUT: True,
    Role.ATTENTION_OUT_NORM: False,
    Role.MLP_NORM: True,
    Role.UP: False,
    Role.DOWN: True,
    Role.MLP_OUT_NORM: False,
}
LAYER = "model.layers.{layer}."


def watched_states(shape: DecoderShape) -> tuple[str, ...]:
    """What `watch_layer` gives after the layer's own result, by modules in a layer."""
    return tuple(
        f"{shape.states[role].removeprefix(LAYER)}{side}"
        for role, taken in _watched(shape).items()
        for side in ((".input", "") if taken else ("",))
    )


def _watched(shape: DecoderShape) -> dict[Role, bool]:
    absent = set(NORM_NAMES) - set(shape.structure.norms)
    return {role: taken for role, taken in WATCHED.items() if role not in absent}


class Watched(Decoder):
    """The decoder with one more function."""

    def watch_layer(
        self, x: Tensor, start: Any, cosine: Tensor, sine: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, ...]:
        """As `run_layer`, and then the `watched_states`."""
        seen: dict[Role, list[Tensor]] = {}

        def watch(role: Role, compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def watched(taken: Tensor) -> Tensor:
                seen[role] = [taken, compute(taken)]
                return seen[role][1]

            return watched

        roles = _watched(self.shape)
        for role in roles:
            module = getattr(self.layer, role.value)
            module.apply = watch(role, module.apply)
        result = self.run_layer(x, start, cosine, sine, keys, values)
        states = [seen[role][0 if taken else 1 :] for role, taken in roles.items()]
        return (result, *(state for pair in states for state in pair))


def lower_probe(shape: DecoderShape, dtype: str) -> IRModule:
    """The watched layer as IR, not yet compiled; parameters as those of the decoder."""
    wanted = {"watch_layer": signatures(shape)["run_layer"]}
    module, _ = Watched(shape, dtype).export_tvm(wanted)
    return module
