"""Small edits of checkpoints and packed files, for tests that break things."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.integrity import KEYS

Tensors = dict[str, tuple[str, list[int], bytes]]


def read_safetensors(path: Path) -> Tensors:
    """name -> (dtype, shape, bytes), read by hand."""
    raw = path.read_bytes()
    (size,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    body = raw[8 + size :]
    return {n: (e["dtype"], e["shape"], body[slice(*e["data_offsets"])]) for n, e in header.items()}


def write_safetensors(path: Path, tensors: Tensors) -> None:
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"".join(data for *_, data in tensors.values()))


def edited_checkpoint(
    source: Path,
    target: Path,
    *,
    config: Callable[[dict[str, Any]], None] | None = None,
    tensors: Callable[[Tensors], None] | None = None,
) -> Path:
    """A copy of a checkpoint with its config or its tensors changed."""
    shutil.copytree(source, target)
    if config:
        document = json.loads((target / "config.json").read_text())
        config(document)
        (target / "config.json").write_text(json.dumps(document))
    if tensors:
        table = read_safetensors(target / "model.safetensors")
        tensors(table)
        write_safetensors(target / "model.safetensors", table)
    return target


def edited_gguf(
    source: Path,
    target: Path,
    *,
    metadata: Callable[[dict[str, Any]], None] | None = None,
    tensors: Callable[[dict[str, np.ndarray]], None] | None = None,
    damaged: bool = False,
) -> Path:
    """A copy of a GGUF file with its metadata or the bytes of its tensors changed.

    damaged: keep the hashes that the file records of its tensors. Whoever writes other tensors records others.
    """
    file = GgufFile(source)
    pairs = {key: value for key, value in file.metadata.items() if not tensors or damaged or key not in KEYS}
    if metadata:
        metadata(pairs)
    data = {name: file.bytes_of(tensor).copy() for name, tensor in file.tensors.items()}
    if tensors:
        tensors(data)
    plans = [TensorPlan(name, file.tensors[name].shape, file.tensors[name].type_id, data[name].size) for name in data]
    write_gguf(target, pairs, plans, ([array] for array in data.values()))
    return target


def split_gguf(
    whole: Path, folder: Path, cuts: list[int], edits: dict[int, Callable[[dict[str, Any]], None]] | None = None
) -> list[Path]:
    """Write a GGUF as a set m-00001-of-N.gguf, ..., as llama-gguf-split does: the first part has the metadata.

    cuts: part i holds the tensors from cuts[i - 1] to cuts[i]. edits: changes of a part's metadata, by number.
    """
    file, count = GgufFile(whole), len(cuts) - 1
    infos, paths = list(file.tensors.values()), []
    for number, (first, last) in enumerate(zip(cuts, cuts[1:]), 1):
        metadata: dict[str, Any] = dict(file.metadata) if number == 1 else {}
        metadata |= {"split.no": np.uint16(number - 1), "split.count": np.uint16(count)}
        metadata |= {"split.tensors.count": np.int32(len(infos))}
        if edits and number in edits:
            edits[number](metadata)
        path = folder / f"m-{number:05}-of-{count:05}.gguf"
        plans = [TensorPlan(info.name, info.shape, info.type_id, info.nbytes) for info in infos[first:last]]
        data = ([file.bytes_of(info)] for info in infos[first:last])
        write_gguf(path, metadata, plans, data, types=file.metadata_types, force=True)
        paths.append(path)
    return paths
