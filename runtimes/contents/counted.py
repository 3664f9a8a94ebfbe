"""What edgeproof.json counts, counted again in the files: sizes and bits per weight are shown.

Everything else in it says where an artifact came from and how it was made: its inputs are those of
the checkpoint, its outputs have the hashes that it says, or the artifact is refused before.
"""

from __future__ import annotations

from edgeproof.artifact import MANIFEST, Artifact
from runtimes.contents.files import Content
from runtimes.contents.origin import Origin


def counted(artifact: Artifact, origin: Origin, nbytes: int) -> Content:
    """Bytes of all weights, scales and zero points included, of so many parameters."""
    manifest = artifact.manifest
    parameters = sum(item.size for item in origin.family.parameters(origin.decoder))
    said = {
        "model": {"parameters": manifest.model.parameters},
        "weights": {key: manifest.weights[key] for key in ("bytes", "effective_bpw")},
    }
    expected = {
        "model": {"parameters": parameters},
        "weights": {"bytes": nbytes, "effective_bpw": round(nbytes * 8 / parameters, 4)},
    }
    return Content(MANIFEST, said, expected)
