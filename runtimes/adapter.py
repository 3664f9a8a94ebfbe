"""A runtime adapter as an object: where its code is, what it imports, and what it is.

Its module has one public function, `open_runtime(artifact, threads)`; it is imported only when an
artifact is opened, so that stating an adapter imports no runtime.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from edgeproof.artifact import Artifact, Facts
from edgeproof.extras import not_installed
from runtimes.protocol import Runtime

SPIN_COUNT = "2000"  # some microseconds, then threads sleep


@dataclass(frozen=True)
class OptionalModule:
    """A module, the optional packages it imports, and the extra that installs them."""

    module: str
    packages: tuple[str, ...]
    extra: str

    def load(self) -> ModuleType:
        """Import it.

        Raises:
            InputError: a package of it is not installed; the message says how to install it.
        """
        # PyTorch and llama.cpp share one OpenMP runtime, which reads this when it is first loaded.
        # Its default, threads that spin at every barrier, takes 5 to 20 times longer when busy.
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
        try:
            for package in self.packages:
                importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name not in self.packages:
                raise
            raise not_installed(error.name, self.extra) from None
        return importlib.import_module(self.module)


@dataclass(frozen=True, kw_only=True)
class Adapter(OptionalModule):
    """One runtime, as parity opens it."""

    device: Literal["cpu", "gpu", "cuda"]
    """What computes; "cuda" is no GPU as a browser has it. Which one, an open `Runtime` says."""
    activations: Literal["float32"] | None
    """The dtype between operators, whatever the file says; None: the one that the file says."""
    real: bool
    """Whether users run their exports in it; else it is a stand-in for what they run."""
    in_process: bool
    """Whether it computes in this process, so that its memory can be measured here."""
    code: str | None
    """The folder of the cache where it keeps what it compiles, if it does."""
    place: str | None = None
    """Where users have it, as people name it, if that is no `Deployment` of the format."""

    def computes_in(self, facts: Facts) -> str | None:
        """The dtype between operators where users run the artifact; None: the runtime decides.

        A stand-in computes as it can, what it stands for as the file says.
        """
        return self.activations if self.activations and self.real else facts.activations

    def require(self) -> None:
        """See that it can run here, as far as that is known before a file is opened.

        Raises:
            InputError: a package of it is not installed, or it finds no device (`found_device`, of
                modules that look for one).
        """
        module = self.load()
        if hasattr(module, "found_device"):
            module.found_device()

    def open(self, artifact: Artifact, threads: int) -> Runtime:
        """Open an artifact of a format that it executes.

        Raises:
            InputError: a package of it is not installed, or it refuses the file.
        """
        runtime: Runtime = self.load().open_runtime(artifact, threads)
        return runtime
