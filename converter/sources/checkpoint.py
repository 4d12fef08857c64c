"""Where bytes come from: a checkpoint folder of config.json and safetensors, read lazily.

safetensors checks each header (its rules on offsets, overlaps and sizes); the data is memory-mapped by us, because its
numpy side raises on bfloat16. Nothing is ever unpickled, and no code that a checkpoint names is followed.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.files import sha256_file
from tritpack.formats.float_types import widen_bf16

SENTENCE_MODULES = {"Transformer", "Pooling", "Normalize"}
INDEX = "model.safetensors.index.json"
FLOATS = {"BF16": 2, "F16": 2, "F32": 4}
HASHED_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "tokenizer.model", "vocab.json", "merges.txt",
    "modules.json",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file: dtype in its spelling (U8, BF16, ...), shape, and its bytes as a mapped view."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Bytes
    file: str
    mapping: mmap.mmap
    offset: int  # of data in the mapping

    def release(self) -> None:
        """Let go of the pages that were read, so that resident memory is bounded by a tensor and not by the file."""
        if hasattr(self.mapping, "madvise"):
            first = self.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self.mapping.madvise(mmap.MADV_DONTNEED, first, self.offset + self.data.size - first)

    def rows_bits(self, first: int, last: int) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Rows [first, last) as the bit patterns of their floats, uint16 or uint32 (last - first, cols). Raises
        Unsupported for what is no float."""
        if self.dtype not in FLOATS:
            raise Unsupported(f"tensor {self.name!r} is stored as {self.dtype}, expected {' or '.join(FLOATS)}")
        cols = self.shape[-1] if self.shape else 1
        size = FLOATS[self.dtype]
        raw = self.data[first * size * cols : last * size * cols]
        return raw.view(f"<u{size}").reshape(last - first, cols)

    def rows_f32(self, first: int, last: int) -> npt.NDArray[np.float32]:
        """Rows [first, last) widened to float32 (last - first, cols). Raises Unsupported for what is no float."""
        return self.widened(self.rows_bits(first, last))

    def widened(self, bits: npt.NDArray[np.unsignedinteger[Any]]) -> npt.NDArray[np.float32]:
        """float32 values of bit patterns of this tensor's type."""
        if self.dtype == "BF16":
            return widen_bf16(bits.astype(np.uint16, copy=False))
        return bits.view("<f2" if self.dtype == "F16" else "<f4").astype(np.float32)

    @property
    def rows(self) -> int:
        return int(np.prod(self.shape[:-1], dtype=np.int64)) if len(self.shape) > 1 else 1


class CheckpointFolder:
    """A local repository: `config`, `generation_config` and `tensors` by name.

    Raises Unreadable for what is missing or corrupt and Unsupported for weights that only pickle could read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            missing = not self.folder.exists()
            raise Unreadable(
                f"{self.folder}: {'does not exist' if missing else 'is a file, expected a checkpoint folder'}",
                hint="give a folder with config.json and safetensors, a GGUF file, or ORG/NAME of the Hub",
            )
        self.config = self._json("config.json", required=True)
        self.generation_config = self._json("generation_config.json", required=False)
        found = sorted(self.folder.glob("*_Pooling/config.json"))
        self.pooling_file = found[0].relative_to(self.folder).as_posix() if found else None
        self.weight_files = self._weight_files()
        self.tensors: dict[str, StoredTensor] = {}
        self.notes = ""  # the free text of the files' headers
        for name in self.weight_files:
            tensors, note = _read_safetensors(self.folder / name)
            self.notes += note
            for tensor in tensors:
                if tensor.name in self.tensors:
                    raise Unreadable(
                        f"tensor {tensor.name!r} stands in both {self.tensors[tensor.name].file} and {name}"
                    )
                self.tensors[tensor.name] = tensor
        self._check_index()

    def pooling(self) -> dict[str, Any] | None:
        """What sentence-transformers puts behind the model: the config of its pooling, or None if there is none.
        Raises Unsupported for modules that we do not run (a projection, say)."""
        path = self.folder / "modules.json"
        if path.is_file():
            try:
                kinds = {str(entry["type"]).rpartition(".")[2] for entry in json.loads(path.read_text("utf-8"))}
            except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
                raise Unreadable(f"{path}: is no list of modules: {error}") from error
            if other := sorted(kinds - SENTENCE_MODULES):
                raise Unsupported(f"{path}: asks for {', '.join(other)} behind the model, which is not run here")
        return None if self.pooling_file is None else self._json(self.pooling_file, required=True)

    @property
    def dtypes(self) -> dict[str, str]:
        """Tensor name -> dtype, from the headers alone."""
        return {name: tensor.dtype for name, tensor in self.tensors.items()}

    def _json(self, name: str, *, required: bool) -> dict[str, Any]:
        path = self.folder / name
        try:
            # A repeated key keeps its last value, as in transformers: HF1BitLLM's config.json relies on it.
            value = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            if required:
                raise Unreadable(f"{self.folder}: has no {name}", hint="this is no transformers checkpoint") from None
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise Unreadable(f"{path}: is not readable JSON: {error}") from error
        if not isinstance(value, dict):
            raise Unreadable(f"{path}: holds {type(value).__name__}, expected an object")
        return value

    def _weight_files(self) -> list[str]:
        self.weight_map: dict[str, str] = {}
        index = self._json(INDEX, required=False)
        if index and not (self.folder / "model.safetensors").is_file():
            mapping = index.get("weight_map")
            if not isinstance(mapping, dict) or not all(isinstance(file, str) for file in mapping.values()):
                raise Unreadable(f"{self.folder}: {INDEX} has no weight_map of file names")
            self.weight_map = mapping
            names = sorted(set(mapping.values()))
            for name in names:
                if Path(name).name != name or not (self.folder / name).is_file():
                    raise Unreadable(f"{self.folder}: the index names {name!r}, which is not there")
            return names
        # As transformers: other safetensors files in a repository (adapters, answers of a test) are not the model.
        names = sorted(path.name for path in self.folder.glob("model*.safetensors"))
        if names:
            return ["model.safetensors"] if "model.safetensors" in names else names
        pickles = sorted(path.name for path in self.folder.glob("*.bin"))
        if pickles:
            raise Unsupported(
                f"{self.folder}: {pickles[0]} is a pickle, which can run code when it is read",
                hint="use a revision with safetensors, or convert it with transformers first",
            )
        raise Unreadable(f"{self.folder}: has no model*.safetensors file")

    def _check_index(self) -> None:
        """Shards of one checkpoint hold what their index says; those of two, or swapped ones, do not."""
        for name, file in self.weight_map.items():
            found = self.tensors[name].file if name in self.tensors else None
            if found != file:
                raise Unreadable(
                    f"{self.folder}: {INDEX} places tensor {name!r} in {file}, it is "
                    + (f"in {found}" if found else "in no file"),
                    hint="the shards are not those of this index; fetch the checkpoint again",
                )

    @property
    def source_files(self) -> list[str]:
        """Names of all files that the conversion depends on, sorted."""
        names = [*HASHED_FILES, *self.weight_files, *([self.pooling_file] if self.pooling_file else [])]
        return sorted(name for name in names if (self.folder / name).is_file())

    @functools.cached_property
    def file_hashes(self) -> dict[str, str]:
        """SHA-256 of every one of them, by name."""
        return {name: sha256_file(self.folder / name) for name in self.source_files}

    @property
    def sha256(self) -> str:
        """One hash for the whole checkpoint: of the sorted lines `HASH  NAME`, as sha256sum prints them."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in self.file_hashes.items())
        return hashlib.sha256(lines.encode()).hexdigest()


def _read_safetensors(path: Path) -> tuple[list[StoredTensor], str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
        with open(path, "rb") as stream:
            mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError) as error:
        raise Unreadable(
            f"{path}: is not a whole safetensors file: {error}", hint="the download may be cut short; fetch it again"
        ) from error
    (length,) = struct.unpack_from("<Q", mapping)
    header = json.loads(mapping[8 : 8 + length])
    note = json.dumps(header.pop("__metadata__", None))
    data: Bytes = np.frombuffer(mapping, np.uint8)
    tensors = []
    for name, entry in header.items():
        first, last = (8 + length + offset for offset in entry["data_offsets"])
        shape = tuple(entry["shape"])
        tensors.append(StoredTensor(name, entry["dtype"], shape, data[first:last], path.name, mapping, first))
    return tensors, note
