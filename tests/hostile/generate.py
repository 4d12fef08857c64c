"""Write the files of this folder and cases.json: `python tests/hostile/generate.py`. Imports nothing of tritpack.

A .json file stands for a checkpoint folder (see tests/fuzz/inputs.py), and `convert` meets it.
Each file is wrong in one way. A case says which command meets it, the exit code, and words that the one sentence on
stderr must contain.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
UNREADABLE, UNSUPPORTED = 3, 4


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, type_id: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", type_id) + value


def tensor(name: str, dimensions: tuple[int, ...], type_id: int, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, type_id, offset)


def gguf(*parts: bytes, version: int = 3, pairs: int = 0, tensors: int = 0, data: int = 0) -> bytes:
    """A file with these parts after its header, and `data` zeros after the padding."""
    body = b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + b"".join(parts)
    return body + bytes(-len(body) % 32) + bytes(data)


ARCHITECTURE = pair("general.architecture", 8, text("llama"))
HUGE = 1 << 60

FILES: dict[str, tuple[bytes, int, list[str]]] = {
    "empty.gguf": (b"", UNREADABLE, ["0 bytes"]),
    "magic.gguf": (b"GGML" + bytes(60), UNREADABLE, ["GGML"]),
    "version.gguf": (gguf(version=99), UNREADABLE, ["version 99"]),
    "big_endian.gguf": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(8), UNREADABLE, ["big-endian"]),
    "tensor_count.gguf": (gguf(tensors=HUGE, data=32), UNREADABLE, [str(HUGE)]),
    "pair_count.gguf": (gguf(pairs=HUGE, data=32), UNREADABLE, [str(HUGE)]),
    "key_length.gguf": (gguf(struct.pack("<Q", HUGE), pairs=1, data=32), UNREADABLE, [str(HUGE)]),
    "string_length.gguf": (
        gguf(text("a.name") + struct.pack("<IQ", 8, HUGE), pairs=1, data=32),
        UNREADABLE,
        ["a.name", str(HUGE)],
    ),
    "array_length.gguf": (
        gguf(text("a.list") + struct.pack("<IIQ", 9, 4, HUGE), pairs=1, data=32),
        UNREADABLE,
        ["a.list", str(HUGE)],
    ),
    "array_depth.gguf": (
        gguf(text("a.deep") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9, pairs=1, data=32),
        UNREADABLE,
        ["a.deep"],
    ),
    "value_type.gguf": (gguf(pair("a.odd", 77, bytes(8)), pairs=1, data=32), UNREADABLE, ["a.odd", "77"]),
    "key_twice.gguf": (gguf(ARCHITECTURE, ARCHITECTURE, pairs=2), UNREADABLE, ["general.architecture"]),
    "tensor_twice.gguf": (
        gguf(tensor("t", (4,), 0), tensor("t", (4,), 0, 32), tensors=2, data=64),
        UNREADABLE,
        ["'t'"],
    ),
    "dimensions.gguf": (gguf(tensor("t", (1,) * 9, 0), tensors=1, data=32), UNREADABLE, ["'t'", "9"]),
    "shape_of_0_by_huge.gguf": (gguf(tensor("t", (0, HUGE), 0), tensors=1, data=32), UNREADABLE, ["'t'"]),
    "tl2_row_length.gguf": (
        gguf(tensor("t", (1 << 30, 32), 39), tensors=1, data=64),
        UNREADABLE,
        ["'t'", "needs", "64 are there"],
    ),
    "shape_product.gguf": (gguf(tensor("t", (1 << 40, 1 << 40), 0), tensors=1, data=32), UNREADABLE, ["'t'"]),
    "offset.gguf": (gguf(tensor("t", (4,), 0, 7), tensors=1, data=32), UNREADABLE, ["'t'", "32"]),
    "beyond_the_end.gguf": (gguf(tensor("t", (4,), 0, 1 << 40), tensors=1, data=32), UNREADABLE, ["'t'"]),
    "truncated_tensor.gguf": (gguf(tensor("t", (1024,), 0), tensors=1, data=32), UNREADABLE, ["'t'", "4096"]),
    "alignment.gguf": (
        gguf(pair("general.alignment", 4, struct.pack("<I", 0)), pairs=1),
        UNREADABLE,
        ["general.alignment"],
    ),
    "i2_s_trailer.gguf": (gguf(tensor("t", (128, 2), 36), tensors=1, data=64), UNREADABLE, ["'t'", "96"]),
    "t158_header.gguf": (gguf(tensor("t", (80, 1), 1585), tensors=1, data=96), UNREADABLE, ["'t'"]),
}

INDEX = "model.safetensors.index.json"


def shard(name: object) -> bytes:
    """A checkpoint whose index says that a tensor is in this file."""
    return json.dumps({"config.json": {"model_type": "llama"}, INDEX: {"weight_map": {"a": name}}}).encode()


FILES |= {
    "shard_name_too_long.json": (shard("a" * 3000), UNREADABLE, [INDEX, "which is not there"]),
    "shard_name_with_nul.json": (shard("a\0b"), UNREADABLE, [INDEX, "which is not there"]),
    "shard_name_of_surrogate.json": (shard("\ud800"), UNREADABLE, [INDEX, "surrogates"]),
    "shard_name_outside.json": (shard("../../etc/passwd"), UNREADABLE, [INDEX, "which is not there"]),
    "shard_name_of_folder.json": (shard("."), UNREADABLE, [INDEX, "which is not there"]),
    "shard_name_number.json": (shard(7), UNREADABLE, [INDEX, "file names"]),
}


def write() -> None:
    """Write every file, and the table of cases."""
    cases = []
    for name, (data, code, words) in FILES.items():
        (FOLDER / name).write_bytes(data)
        command = "convert" if name.endswith(".json") else "inspect"
        cases.append({"file": name, "command": [command], "exit_code": code, "words": words})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (FOLDER / "cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    write()
