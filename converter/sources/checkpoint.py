"""A checkpoint folder: config.json, safetensors files and what lies beside them, read lazily.

No code that a checkpoint names is followed, and nothing is unpickled.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from tritpack.converter.sources.origin import CARD, origin_of
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.files import sha256_file
from tritpack.formats.inputs import Unchanged, open_input, read_input
from tritpack.formats.json_text import parse_json
from tritpack.formats.safetensors_reader import StoredTensor, read_safetensors
from tritpack.formats.suggestions import near_files

SENTENCE_MODULES = {"Transformer", "Pooling", "Normalize"}
"""Modules of sentence-transformers that embedding models may have."""
HADAMARD = "hadamard.json"
"""The contract of a rotated basis, beside the weights of an MLX pack."""
INDEX = "model.safetensors.index.json"
HASHED_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "tokenizer.model", "vocab.json", "merges.txt",
    "modules.json", HADAMARD,
)  # fmt: skip
"""Files, besides the weights, that a conversion depends on."""
FORMS = "give a folder with config.json and safetensors, a GGUF file, or ORG/NAME of the Hub"
PICKLES = (".bin", ".pth", ".pt", ".ckpt")
"""How the names of files end that only pickle reads: parameters.pth, pytorch_model.bin."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "adapters.safetensors")
"""Files of a LoRA adapter, as peft and mlx-lm write them."""


class ShardReader(Protocol):
    """The bytes of a weight file from the first to the last, in order; a context manager that closes it."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer, and return how many bytes there were for it: fewer than it holds only at the end.

        Raises Unreadable, NetworkTrouble, IntegrityFailed.
        """

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> ShardReader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


MERGE = "merge it into its base model first: peft's merge_and_unload and save_pretrained, or mlx_lm.fuse"
WHOLE = re.compile(r"model.*\.safetensors|pytorch_model.*\.bin")


def refuse_adapter(names: Collection[str], path: str | Path) -> None:
    """Raise Unsupported if the files of these names hold the difference to a model instead of a model."""
    adapters = [name for name in ADAPTER_FILES if name in names]
    if adapters and not any(map(WHOLE.fullmatch, names)):
        message = f"is a LoRA adapter ({adapters[0]}), the difference to a model that is not there"
        raise Unsupported(message, path=path, hint=MERGE)


def _folder_of(file: Path) -> str | None:
    """Return a hint for a file of a checkpoint that was given in place of its folder."""
    return f"give its folder: {file.parent}" if (file.parent / "config.json").is_file() else None


class CheckpointFolder:
    """A checkpoint in a local folder.

    config, generation_config, hadamard: the JSON documents ({} for one of the last two that is not there). tensors: by
    name.
    notes: the free text of the weight files' headers. origin: where it comes from. pooling_file: the config of the
    pooling module of sentence-transformers, relative to the folder, or None. unchanged: tells whether a file has
    changed since.
    Raises Unreadable for files that are missing or corrupt, and Unsupported for weights that only pickle can read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            refuse_adapter([self.folder.name] if self.folder.is_file() else [], self.folder)
            missing = not self.folder.exists()
            raise Unreadable(
                "does not exist" if missing else "is a file, expected a checkpoint folder",
                path=self.folder,
                hint=near_files(self.folder) if missing else _folder_of(self.folder) or FORMS,
            )
        named = [self.folder / name for name in (*HASHED_FILES, INDEX, CARD)]
        self.unchanged = Unchanged(
            [*named, *self.folder.glob("*.safetensors"), *self.folder.glob("*_Pooling/config.json")]
        )
        refuse_adapter([path.name for path in self.folder.iterdir()], self.folder)
        self.origin = origin_of(self.folder)
        self.config = self._json("config.json", required=True)
        self.generation_config = self._json("generation_config.json", required=False)
        self.hadamard = self._json(HADAMARD, required=False)
        poolings = sorted(self.folder.glob("*_Pooling/config.json"))
        self.pooling_file = poolings[0].relative_to(self.folder).as_posix() if poolings else None
        self.weight_files = self._weight_files()
        self.tensors: dict[str, StoredTensor] = {}
        self.notes = ""
        for name in self.weight_files:
            self._add_file(name)
        self._check_index()

    @property
    def adapter_files(self) -> list[str]:
        """The names of the files of a LoRA adapter that are in the folder."""
        return [name for name in ADAPTER_FILES if (self.folder / name).is_file()]

    def _names(self) -> set[str]:
        """Return the names of what is in the folder."""
        return {path.name for path in self.folder.iterdir()}

    def _read_header(self, name: str) -> tuple[list[StoredTensor], str]:
        """Return the tensors of a weight file, and the free text of its header."""
        return read_safetensors(self.folder / name)

    def _add_file(self, name: str) -> None:
        tensors, note = self._read_header(name)
        self.notes += note
        for tensor in tensors:
            if tensor.name in self.tensors:
                first = self.tensors[tensor.name].file
                raise Unreadable(f"is in both {first} and {name}", path=self.folder, tensor=tensor.name)
            self.tensors[tensor.name] = tensor

    def pooling(self) -> dict[str, Any] | None:
        """Return the config of the pooling that sentence-transformers does after the model; None if there is none.

        Raises Unsupported for modules that are not run here (a projection, for example).
        """
        path = self.folder / "modules.json"
        if path.is_file():
            try:
                kinds = {str(entry["type"]).rpartition(".")[2] for entry in json.loads(read_input(path))}
            except (ValueError, RecursionError, TypeError, KeyError) as error:
                raise Unreadable(f"is not a list of modules: {error}", path=path) from error
            if other := sorted(kinds - SENTENCE_MODULES):
                raise Unsupported(f"asks for {', '.join(other)} after the model, which is not run here", path=path)
        return None if self.pooling_file is None else self._json(self.pooling_file, required=True)

    @property
    def dtypes(self) -> dict[str, str]:
        """The dtype of each tensor by name, from the headers alone."""
        return {name: tensor.dtype for name, tensor in self.tensors.items()}

    def _json(self, name: str, *, required: bool) -> dict[str, Any]:
        path = self.folder / name
        if not path.exists():
            if required:
                packed = sorted(self.folder.glob("*.gguf"))
                if packed:  # perhaps beside the parameters.pth that it was made with, as CAT-Q's are
                    hint = f"give the GGUF file itself: {packed[0]}"
                    raise Unreadable(f"has no {name}", path=self.folder, hint=hint)
                self._refuse_pickles()
                raise Unreadable(f"holds no GGUF and no checkpoint: it has no {name}", path=self.folder, hint=FORMS)
            return {}
        try:
            # A repeated key keeps its last value, as in transformers: HF1BitLLM's config.json relies on it.
            value = parse_json(read_input(path))
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"is not readable JSON: {error}", path=path) from error
        if not isinstance(value, dict):
            raise Unreadable(f"holds {type(value).__name__}, expected an object", path=path)
        return value

    def _weight_files(self) -> list[str]:
        self.weight_map: dict[str, str] = {}
        entries = self._names()
        index = self._json(INDEX, required=False)
        if index and "model.safetensors" not in entries:
            mapping = index.get("weight_map")
            if not isinstance(mapping, dict) or not all(isinstance(file, str) for file in mapping.values()):
                raise Unreadable(f"{INDEX} has no weight_map of file names", path=self.folder)
            self.weight_map = mapping
            names = sorted(set(mapping.values()))
            # Compared with the folder's own list: an impossible name, or one outside of the folder, is never looked up.
            if absent := [name for name in names if name not in entries]:
                raise Unreadable(f"{INDEX} names {absent[0][:80]!r}, which is not there", path=self.folder)
            return names
        # As transformers: other safetensors files in a repository (adapters, answers of a test) are not the model.
        names = sorted(name for name in entries if name.startswith("model") and name.endswith(".safetensors"))
        if names:
            return ["model.safetensors"] if "model.safetensors" in names else names
        self._refuse_pickles()
        raise Unreadable("has no model*.safetensors file", path=self.folder)

    def _refuse_pickles(self) -> None:
        """Raise Unsupported if the weights are there in files that only pickle can read."""
        names = sorted(name for name in self._names() if name.endswith(PICKLES))
        if names:
            hint = "use a revision with safetensors, or save it as safetensors with the program that made it"
            if names == ["parameters.pth"]:
                hint = "if it is CAT-Q's, it holds what was learned and no weights: give the GGUF file of that folder"
            what = f"{names[0]} is a pickle, which can run code when it is read"
            raise Unsupported(what, path=self.folder, hint=hint)

    def _check_index(self) -> None:
        """Raise Unreadable if a shard does not hold what the index says: shards of two checkpoints, or swapped ones."""
        for name, file in self.weight_map.items():
            actual = self.tensors[name].file if name in self.tensors else None
            if actual != file:
                raise Unreadable(
                    f"{INDEX} places tensor {name!r} in {file}, and it is {f'in {actual}' if actual else 'in no file'}",
                    path=self.folder,
                    hint="the shards do not belong to this index; fetch the checkpoint again",
                )

    @property
    def source_files(self) -> list[str]:
        """The names of all files that a conversion depends on, sorted."""
        small = [*HASHED_FILES, CARD, *([self.pooling_file] if self.pooling_file else [])]
        return sorted([*(name for name in small if (self.folder / name).is_file()), *self.weight_files])

    # -- one pass over the weights -------------------------------------------------------------------------------------

    @property
    def shard_files(self) -> list[tuple[str, int]]:
        """The names and sizes of the weight files, in the order in which a pass reads them."""
        return [(name, (self.folder / name).stat().st_size) for name in self.weight_files]

    def open_shard(self, name: str) -> ShardReader:
        """Open a weight file at its first byte. Raises Unreadable, NetworkTrouble."""
        return open_input(self.folder / name)

    def finish(self, name: str, sha256: str) -> None:
        """Compare the hash of a weight file, taken while it was read to its end, with what the source says of it.

        A folder says nothing; files that were changed meanwhile are found by `unchanged`. Raises IntegrityFailed.
        """

    def fingerprint(self) -> str:
        """Return what tells this checkpoint from others and from later versions of itself, as text."""
        return self.unchanged.fingerprint()

    # -- hashes --------------------------------------------------------------------------------------------------------

    @property
    def files(self) -> list[Path]:
        """The paths of all files that are read."""
        return [self.folder / name for name in (*self.source_files, INDEX)]

    @functools.cached_property
    def document_hashes(self) -> dict[str, str]:
        """The SHA-256 of each of these files but the weights, by name."""
        return {name: sha256_file(self.folder / name) for name in self.source_files if name not in self.weight_files}

    @functools.cached_property
    def file_hashes(self) -> dict[str, str]:
        """The SHA-256 of each of these files, by name, sorted."""
        weights = {name: sha256_file(self.folder / name) for name in self.weight_files}
        return dict(sorted({**self.document_hashes, **weights}.items()))

    @property
    def sha256(self) -> str:
        """One hash for the whole checkpoint: see checkpoint_hash."""
        return checkpoint_hash(self.file_hashes)


def checkpoint_hash(hashes: Mapping[str, str]) -> str:
    """Return one hash for files: that of the sorted lines `HASH  NAME`, as sha256sum prints them. hashes: by name."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
