"""`python -m benchmarks.openvino [FORMAT/VARIANT]…`: OpenVINO as edgeproof sets it, and as it is.

A model's exports against PyTorch float32 over some texts of the fast budget, mean KL and the share
of positions with the same best token: in the format's usual runtime, in OpenVINO with
`runtimes.openvino.device.EXACT`, and with none of it, which is what users get on this processor. Of
GGUF files also how far the matrices that OpenVINO GenAI takes from the file are from the file's
own: root of the mean squared difference, relative to that of the values, the worst one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from edgeproof.artifact import Artifact
from edgeproof.errors import InputError
from export import job
from export.checkpoint import open_checkpoint
from export.formats import load_format
from export.sources import Source, resolve
from runtimes.formats import dequantise
from runtimes.parity.inputs import recorded_inputs
from runtimes.parity.reference import Reference, load_reference
from runtimes.parity.replay import replay
from runtimes.parity.statistics import summarise
from runtimes.parity.suite import Budget, built_in
from runtimes.protocol import Runtime
from runtimes.registry import adapter_of, open_reference, open_runtime
from runtimes.threads import threads_option

TEXTS, FIRST_ROWS = 6, 16
USUAL = ("gguf/q4_1", "gguf/q4_0", "gguf/q8_0", "gguf/f16", "onnx/fp32", "onnx/q8")


@click.command()
@click.argument("variants", nargs=-1)
@click.option("--model", default="bundled", show_default=True, help="As for exports.")
@threads_option
def main(variants: tuple[str, ...], model: str, threads: int) -> None:
    """Measure the variants named, print the table."""
    source = resolve(model)
    with tempfile.TemporaryDirectory(prefix="edgeproof-bench-") as folder:
        artifacts = [_export(source, name, Path(folder)) for name in variants or USUAL]
        torch_runtime = open_reference(source.path, threads)
        inputs, suite = recorded_inputs(source.path, artifacts), built_in(Budget.FAST)
        # Replies take PyTorch longer than all the rest.
        texts = tuple(prompt for prompt in suite.prompts if prompt.text is not None)[:TEXTS]
        few = replace(suite, prompts=texts, probe=0)
        reference = load_reference(torch_runtime, few, inputs, lambda: None)
        torch_runtime.close()
        title = f"KL to PyTorch and same best token, {reference.positions} positions"
        table = Table("", "usual runtime", "OpenVINO, float32", "its defaults", "weights off by",
                      title=title, title_justify="left")  # fmt: skip
        for artifact in artifacts:
            variant = artifact.manifest.variant
            cells = [f"{variant.format}/{variant.name}"]
            cells += [_found(opener, reference, threads) for opener in _openers(artifact, threads)]
            cells.append(_weights_off(artifact))
            print(*cells, sep=" | ", flush=True)
            table.add_row(*cells)
    Console(width=120).print(table)


def _openers(artifact: Artifact, threads: int) -> Iterator[Callable[[], Runtime]]:
    from runtimes.openvino.device import EXACT

    opened = adapter_of(artifact, "openvino").load()
    yield lambda: open_runtime(artifact, threads)
    yield lambda: opened.open_runtime(artifact, threads, EXACT)
    yield lambda: opened.open_runtime(artifact, threads, {})


def _export(source: Source, name: str, root: Path) -> Artifact:
    form, _, dtype = name.partition("/")
    chosen = load_format(form)
    checkpoint = open_checkpoint(source.path)
    identity = job.identify(source, checkpoint)
    variant = chosen.complete_from_checkpoint(chosen.variant(dtype), checkpoint)
    wanted = job.Job(source, checkpoint, identity, chosen, variant)
    return job.run(wanted, root, lambda n: None).artifact


def _found(opener: Callable[[], Runtime], reference: Reference, threads: int) -> str:
    try:
        with contextlib.closing(opener()) as runtime:
            found = summarise(
                replay(reference, runtime.logit_blocks, threads, lambda: None).metrics
            )
    except InputError as error:
        return str(error).rpartition(": ")[2]
    return f"{found['mean_kl'].value:.2g}, {found['top1'].value:.0%}"


def _weights_off(artifact: Artifact) -> str:
    if artifact.manifest.variant.format != "gguf":
        return ""
    found = differences(artifact)
    worst = max(found, key=lambda name: found[name])
    return f"{found[worst]:.2g} ({worst})"


def differences(artifact: Artifact) -> dict[str, float]:
    """Of each matrix of a GGUF file, by its name in the checkpoint, how far GenAI's values are off.

    Root of the mean squared difference, relative to that of the file's values.
    """
    import openvino as ov

    from runtimes.openvino.gguf import SAVED, convert

    own = {name: values for name, values in dequantise(artifact).items() if values.ndim == 2}
    with tempfile.TemporaryDirectory(prefix="edgeproof-bench-") as folder:
        convert(artifact.files(".gguf")[0], Path(folder))
        model = ov.Core().read_model(Path(folder) / SAVED)
        found: dict[str, float] = {}
        for values in _matrices(model):
            name, error = _nearest(values, own)
            found[name] = max(error, found.get(name, 0))
        del model
    return found


def _matrices(model: Any) -> Iterator[np.ndarray]:
    """What each product multiplies with, where that does not depend on the inputs: [out, in]."""
    import openvino as ov

    from runtimes.openvino.device import DEVICE, settings

    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or _depends(node.input_value(1).get_node()):
            continue
        part = ov.Model([node.input_value(1)], [])
        (values,) = ov.Core().compile_model(part, DEVICE, settings(1))({}).values()
        yield np.asarray(values, np.float32)


def _depends(node: Any) -> bool:
    if node.get_type_name() in ("Parameter", "ReadValue"):
        return True
    return any(_depends(value.get_node()) for value in node.input_values())


def _nearest(values: np.ndarray, own: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """Whose values these are, and how far off: the tensor whose first rows are nearest."""
    alike = {name: rows for name, rows in own.items() if rows.shape == values.shape}
    first = {name: _off(values[:FIRST_ROWS], rows[:FIRST_ROWS]) for name, rows in alike.items()}
    name = min(first, key=lambda name: first[name])
    return name, _off(values, alike[name])


def _off(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


if __name__ == "__main__":
    main()
