"""Signatures of single files by sigstore's model_signing, with a key pair of elliptic curves.

The signature of an attestation protects the attestation, and through the hashes in it the GGUF files. It is a sigstore
bundle, so `model_signing verify key` reads it too.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from types import ModuleType

from tritpack.formats.errors import IntegrityFailed, MissingRequirement, Unreadable
from tritpack.formats.files import atomic_output
from tritpack.formats.inputs import read_input
from tritpack.formats.json_text import parse_json

SUFFIX = ".sig"
PIP = 'pip install "tritpack[attest]"'


def signature_name(path: str | Path) -> Path:
    """Return the path of the signature beside a file: NAME.sig."""
    return Path(f"{path}{SUFFIX}")


def require_extra() -> None:
    """Raise MissingRequirement if nothing can be signed or verified here."""
    _module("signing")


def sign(path: str | Path, key: str | Path, *, force: bool = False) -> Path:
    """Sign a file with a private key (PEM, not encrypted), and return the path of the signature, NAME.sig beside it.

    Raises MissingRequirement without model_signing, Unreadable for a key that is none, UsageError if there is a
    signature and `force` is not given, WriteFailed.
    """
    signing = _module("signing")
    read_input(Path(key))
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=Path(key))
    except (ValueError, TypeError, AttributeError) as error:  # what the library raises for a key of another kind
        hint = "it takes a private key of the curves P-256, P-384 or P-521 as PEM, without a password"
        raise Unreadable(f"is not a key that can sign: {_reason(error)}", path=key, hint=hint) from error
    with tempfile.TemporaryDirectory(prefix="tritpack-") as folder:
        written = Path(folder) / "signature"
        config.sign(Path(path), written)
        data = written.read_bytes()
    with atomic_output(signature_name(path), len(data), force=force) as stream:
        stream.write(data)
    return signature_name(path)


def verify_signature(
    path: str | Path, signature: str | Path, public_key: str | Path, *, called: Path | None = None
) -> None:
    """Compare a file with its signature. called: what errors call a file that is a copy; its signature is NAME.sig.

    Raises IntegrityFailed if the signature is not that of the file by this key, Unreadable for what is missing or is no
    key or signature, MissingRequirement without model_signing.
    """
    verifying = _module("verifying")
    read_input(Path(public_key))
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=Path(public_key))
    except (ValueError, TypeError, AttributeError) as error:
        hint = "it takes the public key of the curves P-256, P-384 or P-521 as PEM"
        raise Unreadable(f"is not a public key: {_reason(error)}", path=public_key, hint=hint) from error
    shown = Path(signature) if called is None else signature_name(called)
    _require_bundle(Path(signature), shown)
    read_input(Path(path))
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where it prints its warnings
            config.verify(Path(path), Path(signature))
    except Exception as error:  # of many classes, those of cryptography and pydantic among them
        raise IntegrityFailed(
            # What follows a colon and a bracket are the bytes of hashes, as Python writes them.
            f"is not the signature of {called or path} by the key {public_key}: {_reason(error).partition(': [')[0]}",
            path=shown,
            hint="the file or the signature was changed, or somebody else signed it",
        ) from error


def _require_bundle(signature: Path, shown: Path) -> None:
    """Raise Unreadable for a file that is not a sigstore bundle."""
    try:
        document = parse_json(read_input(signature))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"is not a signature: it is not readable JSON: {error}", path=shown) from error
    if not isinstance(document, dict) or "dsseEnvelope" not in document:
        raise Unreadable("is not a signature: it has no dsseEnvelope", path=shown)


def _module(name: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(f"model_signing.{name}")
    except ImportError as error:
        message = f"signatures need the Python package model_signing ({error.name or error} is not installed)"
        raise MissingRequirement(message, hint=PIP) from error


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
