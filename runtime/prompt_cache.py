"""A session's tokens, keys and values in a file, so that a long prompt is evaluated once.

The file belongs to one model file (by its SHA-256), one type of KV cache and one version of the C library. It is
numpy's .npz, whose checksums find damage.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tritpack.formats.errors import Unreadable, UsageError, locating
from tritpack.formats.files import atomic_output
from tritpack.formats.inputs import open_input
from tritpack.runtime.abi import ABI_VERSION

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

SCHEMA = "tritpack.prompt_cache/1"


def save_prompt_cache(model: Model, path: Path, *, positions: int | None = None) -> None:
    """Write what the session remembers, or its first `positions`; an existing file is replaced. Raises WriteFailed."""
    count = len(model.tokens) if positions is None else min(positions, len(model.tokens))
    model.rewind(count)
    state = model.session.own.save()
    about, tokens = np.array(json.dumps(_about(model))), np.array(model.tokens, np.int32)
    with atomic_output(path, state.nbytes, force=True) as stream:
        np.savez(stream, about=about, tokens=tokens, state=state)


def load_prompt_cache(model: Model, path: Path) -> int:
    """Let the session remember what a file has, and return its number of tokens; 0 where there is no such file.

    Raises Unreadable for a file that is damaged or not a prompt cache, UsageError for that of another model, type of
    KV cache or version, or if the context is too short.
    """
    if not path.exists():
        return 0
    with open_input(path) as stream, locating(path=path):
        try:
            with zipfile.ZipFile(stream) as archive:
                if any(member.compress_type for member in archive.infolist()):
                    raise ValueError("its arrays are compressed")  # and could become as large as they like
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as arrays:
                about, tokens, state = json.loads(str(arrays["about"])), arrays["tokens"], arrays["state"]
        except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
            raise Unreadable(f"is not a prompt cache, or is damaged: {error}") from error
        _refuse_another(about, _about(model))
        if tokens.dtype != np.int32 or tokens.ndim != 1 or state.dtype != np.uint8 or state.ndim != 1:
            raise Unreadable("is not a prompt cache: its arrays have other types")
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < model.spec.vocab_size:
            raise Unreadable("holds a token outside the vocabulary")
        model.reset()
        model.session.own.load(len(tokens), state)
        model.tokens.extend(tokens.tolist())
    return len(tokens)


def _about(model: Model) -> dict[str, Any]:
    """What a cache is bound to."""
    return {
        "schema": SCHEMA,
        "model_sha256": model.file.sha256,
        "kv_type": model.kv_type,
        "int8_activations": model.spec.int8_activations,
        "library": ABI_VERSION,
    }


def _refuse_another(about: Any, expected: dict[str, Any]) -> None:
    """Raise an error that says what a cache belongs to, unless it is this model and library."""
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise Unreadable("is not a prompt cache of tritpack")
    differing = [name for name, value in expected.items() if about.get(name) != value]
    if not differing:
        return
    what = {"model_sha256": "of another model file", "kv_type": f"of --kv-type {about.get('kv_type')}"}
    raise UsageError(
        f"is a prompt cache {what.get(differing[0], 'of another version of tritpack')}",
        hint="give --prompt-cache another name; the file is made when it does not exist",
    )
