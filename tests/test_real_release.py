"""`make verify`: the real exports as a signed release, and any byte of it changed."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.release.__main__ import main

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


def verify(release: Path, key: Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["verify", str(release), "--key", str(key)])
    return done.exit_code, done.output


def test_make_release_verifies_and_any_changed_byte_is_found(
    real_artifacts: Path, tmp_path: Path
) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    new = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private]
    subprocess.run(new, check=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True)
    dist = tmp_path / "dist"
    make = ["make", "release", f"OUT={real_artifacts}", f"DIST={dist}", "VERSION=1.0"]
    subprocess.run([*make, f"KEY={private}"], cwd=ROOT, check=True)
    (release,) = dist.iterdir()
    assert verify(release, public) == (0, f"{release}: as it was built; its signature is right\n")
    # Archives are the release's own; repositories are hard links to the artifacts.
    rng = random.Random(8)
    for path in rng.sample(sorted((release / "archives").iterdir()), 3):
        at = rng.randrange(path.stat().st_size)
        flip(path, at)
        code, output = verify(release, public)
        assert code == 1
        assert path.relative_to(release).as_posix() in output
        flip(path, at)


def flip(path: Path, at: int) -> None:
    with path.open("rb+") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
