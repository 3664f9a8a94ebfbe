"""MLC's parameters of a decoder: fused projections, in the order mlc_llm converts them.

Source: mlc_llm `loader/standard_loader.py` (fusions) and `loader/huggingface_loader.py`
(`_loading_order`).
"""

from __future__ import annotations

from collections import defaultdict

from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, Parameter, Role
from export.checkpoint import Checkpoint
from export.checkpoint.weight_files import INDEX
from export.targets import Target, check_bound, stack_rows

# Linears that share their input become one, the first role's rows on top.
FUSIONS: dict[str, tuple[Role, ...]] = {
    "qkv_proj": (Role.QUERY, Role.KEY, Role.VALUE),
    "gate_up_proj": (Role.GATE, Role.UP),
}
FUSED_INTO = {role: name for name, roles in FUSIONS.items() for role in roles}


def check_plain_llama(config: DecoderConfig) -> None:
    """Refuse what the parameters and config written here do not express.

    Raises:
        InputError: naming the feature.
    """
    features = {
        f"architecture {config.family!r}": config.family != "llama",
        "biases of linear layers": bool(config.biased),
        "rope scaling": config.rope_scaling is not None,
    }
    for feature in (name for name, present in features.items() if present):
        raise InputError(
            f"MLC: {feature} is not supported yet; export this model to GGUF or ONNX instead"
        )


def mlc_targets(checkpoint: Checkpoint) -> list[Target]:
    """Every MLC parameter, in the order in which its first component is loaded.

    Raises:
        InputError: a parameter of the checkpoint would be dropped or used twice.
    """
    members: dict[str, list[Parameter]] = defaultdict(list)
    for parameter in checkpoint.parameters:
        members[_mlc_name(parameter)].append(parameter)
    targets = [_target(name, parameters) for name, parameters in members.items()]
    check_bound(targets, checkpoint.parameters)
    position = {name: number for number, name in enumerate(_loading_order(checkpoint))}
    return sorted(targets, key=lambda t: min(position[source.name] for source in t.sources))


def _mlc_name(parameter: Parameter) -> str:
    fused = FUSED_INTO.get(parameter.role)
    if fused is None:
        return parameter.name
    module, _, kind = parameter.name.rsplit(".", 2)
    return f"{module}.{fused}.{kind}"


def _target(name: str, parameters: list[Parameter]) -> Target:
    if len(parameters) == 1:
        return Target(name, (parameters[0],), parameters[0].shape)
    order = FUSIONS[FUSED_INTO[parameters[0].role]]
    sources = tuple(sorted(parameters, key=lambda parameter: order.index(parameter.role)))
    shape = (sum(source.shape[0] for source in sources), *sources[0].shape[1:])
    return Target(name, sources, shape, stack_rows)


def _loading_order(checkpoint: Checkpoint) -> list[str]:
    """One file: by name (safetensors' `keys()` sorts). Shards: as the index lists them, by file."""
    weight_map = checkpoint.json_file(INDEX).get("weight_map")
    if weight_map is None:
        return sorted(checkpoint.stored_order)
    files: dict[str, list[str]] = defaultdict(list)
    for name, file in weight_map.items():
        files[file].append(name)
    return [name for names in files.values() for name in names]
