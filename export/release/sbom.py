"""`sbom.cdx.json`: a CycloneDX bill of materials, with the model as a machine learning component.

Format: https://cyclonedx.org/docs/1.6/json/. The library writes no `modelCard` section yet, so that
is added here; tests hold the result against the published schema. There is no time in it: the
schema does not ask for one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeproof import __version__
from edgeproof.artifact import ModelIdentity
from edgeproof.files.hashing import OutputFile
from edgeproof.json_text import parse_json
from export.release.record import Record

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

SBOM = "sbom.cdx.json"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/edgeproof")
INDENT = 2


def sbom_bytes(record: Record, model: ModelIdentity, files: Sequence[OutputFile]) -> bytes:
    """The model, the checkpoint's files it was made from, and the files that are released."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    root = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=model.name,
        version=record["version"],
        bom_ref="model",
        licenses=_licences(record["model"]["license"]),
        components=[_file("release", item) for item in files],
    )
    source = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=model.repo or model.name,
        version=model.revision,
        bom_ref="checkpoint",
        licenses=_licences(record["model"]["license"]),
        components=[_file("checkpoint", item) for item in model.inputs],
    )
    tool = Component(
        type=ComponentType.APPLICATION, name="edgeproof", version=__version__, bom_ref="edgeproof"
    )
    digests = "".join(item.sha256 for item in files)
    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, digests), components=[source])
    bom.metadata.component = root
    bom.metadata.tools.components.add(tool)
    bom.register_dependency(root, [source])
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    raw = parse_json(text)
    del raw["metadata"]["timestamp"]
    raw["metadata"]["component"]["modelCard"] = _model_card(record)
    return (json.dumps(raw, indent=INDENT, sort_keys=True, ensure_ascii=False) + "\n").encode()


def sbom_digests(data: bytes) -> dict[str, str]:
    """Path → SHA-256 of the released files that a bill names.

    Raises:
        ValueError, KeyError, TypeError: not such a bill.
    """
    root = parse_json(data)["metadata"]["component"]
    return {item["name"]: item["hashes"][0]["content"] for item in root["components"]}


def _file(group: str, item: OutputFile) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        type=ComponentType.FILE,
        name=item.path,
        bom_ref=f"{group}/{item.path}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=item.sha256)],
    )


def _licences(licence: Any) -> list[Any]:
    """An SPDX expression where it is one, whatever the case; else a name."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    names = [licence] if isinstance(licence, str) else licence or []
    return [LicenseFactory().make_from_string(str(name)) for name in names]


def _model_card(record: Record) -> dict[str, Any]:
    metrics = [
        {
            "type": name,
            "slice": f"{item['format']} {item['variant']}",
            "value": str(interval["value"]),
            "confidenceInterval": {
                "lowerBound": str(interval["low"]),
                "upperBound": str(interval["high"]),
            },
        }
        for item in record["variants"]
        for name, interval in item["metrics"].items()
        if interval["value"] is not None
    ]
    return {
        "modelParameters": {"task": "text-generation"},
        "quantitativeAnalysis": {"performanceMetrics": metrics},
    }
