"""`model.sig`: the OpenSSF model signature of a whole release, by a key or by sigstore.

Format and implementation: https://github.com/sigstore/model-transparency. It covers every file but
itself and its own checksum, which makes a damaged signature tell from a wrong key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproof.errors import InputError
from edgeproof.files.atomic import write_atomic
from edgeproof.files.hashing import file_sha256
from edgeproof.verdicts import SIGNATURE_FILES

if TYPE_CHECKING:
    from model_signing import hashing

SIGNATURE, SIGNATURE_SUM = UNSIGNED = SIGNATURE_FILES
# What the library raises for keys of another kind (AttributeError: one without a curve), and a
# network without sigstore.
UNUSABLE = (OSError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True)
class Identity:
    """Who must have signed by sigstore; in GitHub Actions it is a workflow's URL."""

    name: str
    issuer: str


def require_key(key: Path) -> None:
    """Refuse, before anything is built, a key that `sign` could not use.

    Raises:
        InputError: no private EC key without a password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        if isinstance(load_pem_private_key(key.read_bytes(), None), EllipticCurvePrivateKey):
            return
        reason = "a key of another kind"
    except (*UNUSABLE, UnsupportedAlgorithm) as error:
        reason = _one_line(error)
    raise InputError(f"{key}: not a private EC key without a password ({reason})")


def sign(folder: Path, key: Path | None) -> None:
    """Sign a release with a private EC key (PEM), or, without one, by the ambient OIDC identity.

    Raises:
        InputError: a key that cannot be used; no ambient identity.
    """
    from model_signing import signing
    from sigstore.errors import Error as SigstoreError

    config = signing.Config().set_hashing_config(_hashing())
    try:
        if key is not None:
            config.use_elliptic_key_signer(private_key=key)
        else:
            config.use_sigstore_signer(use_ambient_credentials=True)
        config.sign(folder, folder / SIGNATURE)
    except (*UNUSABLE, SigstoreError) as error:
        what = f"{key}: not a private EC key without a password" if key else "--sigstore"
        raise InputError(f"{what} ({_one_line(error)})") from None
    digest = file_sha256(folder / SIGNATURE)
    write_atomic(folder / SIGNATURE_SUM, f"{digest}  {SIGNATURE}\n".encode())


def signature_problems(folder: Path, signer: Path | Identity | None) -> Iterator[str]:
    """What is wrong with a release's signature; `signer` is a public key or an identity.

    Without a signer only damage is found.
    """
    present = [name for name in UNSIGNED if (folder / name).is_file()]
    if not present:
        if signer is not None:
            yield f"{SIGNATURE}: missing, the release is not signed"
        return
    if len(present) < len(UNSIGNED):
        yield f"{(set(UNSIGNED) - set(present)).pop()}: missing beside {present[0]}"
        return
    expected = f"{file_sha256(folder / SIGNATURE)}  {SIGNATURE}\n".encode()
    if (folder / SIGNATURE_SUM).read_bytes() != expected:
        yield f"{SIGNATURE} or {SIGNATURE_SUM}: damaged, they do not belong together"
    elif signer is not None:
        yield from _verified(folder, signer)


def _verified(folder: Path, signer: Path | Identity) -> Iterator[str]:
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying
    from sigstore.errors import Error as SigstoreError

    config = verifying.Config().set_hashing_config(_hashing())
    try:
        if isinstance(signer, Path):
            config.use_elliptic_key_verifier(public_key=signer)
        else:
            config.use_sigstore_verifier(identity=signer.name, oidc_issuer=signer.issuer)
    except (*UNUSABLE, SigstoreError) as error:
        what = f"{signer}: not a public EC key" if isinstance(signer, Path) else "sigstore"
        raise InputError(f"{what} ({_one_line(error)})") from None
    try:
        config.verify(folder, folder / SIGNATURE)
    except InvalidSignature:
        yield f"{SIGNATURE}: not made with this key"
    except (ValueError, KeyError, TypeError, SigstoreError) as error:
        yield f"{SIGNATURE}: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _hashing() -> hashing.Config:
    from model_signing import hashing

    ignored = [Path(name) for name in UNSIGNED]
    return hashing.Config().set_ignored_paths(paths=ignored, ignore_git_paths=False)
