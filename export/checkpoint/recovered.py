"""The grids of a recovered checkpoint, checked against the tensors that it has."""

from __future__ import annotations

from collections.abc import Mapping

from edgeproof.errors import InputError
from edgeproof.recovery import RECOVERY
from export.checkpoint.checkpoint import Checkpoint


def recovered_grids(checkpoint: Checkpoint) -> Mapping[str, str]:
    """Name of a matrix in the checkpoint → its grid in `edgeproof.recovery.GRIDS`.

    Raises:
        InputError: the checkpoint has no recovery.json, or one that names other tensors.
    """
    recovery = checkpoint.recovery
    if recovery is None:
        raise InputError(
            f"{checkpoint.path}: no {RECOVERY}, so this is no recovered checkpoint; choose a dtype"
            " that says how tensors are stored"
        )
    matrices = {item.name for item in checkpoint.parameters if len(item.shape) > 1}
    for name in recovery.grids.keys() - matrices:
        raise InputError(f"{checkpoint.path / RECOVERY}: the checkpoint has no matrix {name}")
    return recovery.grids
