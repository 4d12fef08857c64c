"""Writes the seeds in corpus/, which every target starts from: `python -m tests.fuzz.seeds`."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import bundles, hub_answers, seeds_c
from tests.fuzz.inputs import write_folder
from tests.fuzz.targets import cached_model
from tests.hostile.generate import gguf, pair, tensor, text
from tests.make.families import FAMILIES, make
from tests.make.tokenizers import write_tokenizer
from tritpack.converter.convert import convert
from tritpack.formats.layouts import catalog
from tritpack.runtime.prompt_cache import save_prompt_cache

CORPUS = Path(__file__).resolve().parent / "corpus"
KINDS = ("llama3", "falcon3", "qwen2", "neox", "gemma", "llama2", "minicpm")
MODELS = {"gguf_model": ("minicpm_mlx", "llama_mlx"), "gguf_used": ("bitcpm_longrope", "falcon_e_prequantized")}
KEPT_TOKENS = 48
HEADERS = {"t2": b"T2\1\0" + struct.pack("<II", 2, 2), "t158": b"T158" + struct.pack("<II", 2, 2)}
Folder = dict[str, Any]


def folder_document(folder: Path) -> Folder:
    """The JSON files of a folder, and the headers of its safetensors files."""
    files: Folder = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            files[name] = json.loads(path.read_text("utf-8"))
        elif path.suffix == ".safetensors":
            raw = path.read_bytes()
            (length,) = struct.unpack_from("<Q", raw)
            files[name] = {"header": json.loads(raw[8 : 8 + length]), "bytes": len(raw) - 8 - length}
    return files


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def shortened(files: Folder) -> Folder:
    """The same with a tokenizer of few tokens, ids without gaps, so that a seed is small and quick."""
    document = files["tokenizer.json"]
    model, added = document["model"], document["added_tokens"]
    special = {token["content"] for token in added}
    words = [word for word in sorted(model["vocab"], key=model["vocab"].get) if word not in special]
    model["vocab"] = {
        word: i for i, word in enumerate([*sorted(special & model["vocab"].keys()), *words[:KEPT_TOKENS]])
    }
    kept = model["vocab"].keys()
    model["merges"] = [[a, b] for a, b in model["merges"] if {a, b, a + b} <= kept]
    free = itertools.count(len(model["vocab"]))
    for token in added:
        token["id"] = model["vocab"][token["content"]] if token["content"] in kept else next(free)
    files.get("tokenizer_config.json", {}).pop("added_tokens_decoder", None)
    if "added_tokens.json" in files:
        files["added_tokens.json"] = {token["content"]: token["id"] for token in added}
    files["generation_config.json"] = {"bos_token_id": 0, "eos_token_id": [1, 2], "pad_token_id": 0}
    return files


def checkpoints(scratch: Path) -> Folder:
    seeds = {}
    for name in (*list(FAMILIES)[::3], "embedding_qwen3"):  # many differ in the bytes alone
        made = make(name, scratch / name)
        seeds[name] = shortened(folder_document(made.folder))
    return seeds


def tokenizers(scratch: Path) -> Folder:
    seeds = {}
    for kind in KINDS:
        config = write_tokenizer(scratch / kind, kind)
        seeds[kind] = {"config.json": config, **shortened(folder_document(scratch / kind))}
    model = seeds["qwen2"]["tokenizer.json"]["model"]
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    seeds["vocab_and_merges"] = {**seeds["qwen2"], "vocab.json": model["vocab"], "merges.txt": merges}
    pieces = "\0" + (scratch / "llama2" / "tokenizer.model").read_bytes().decode("latin-1")
    seeds["sentencepiece"] = {**seeds["llama2"], "tokenizer.model": pieces}
    for name in ("vocab_and_merges", "sentencepiece"):
        for beside in ("tokenizer.json", "added_tokens.json"):
            seeds[name].pop(beside, None)
    return seeds


def templates(scratch: Path) -> Folder:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    seeds = {}
    for kind in KINDS:
        write_tokenizer(scratch / f"{kind}-chat", kind)
        settings = json.loads((scratch / f"{kind}-chat" / "tokenizer_config.json").read_text("utf-8"))
        if template := settings.get("chat_template"):
            seeds[kind] = {"template": template, "messages": chat}
    return seeds


def gguf_files() -> dict[str, bytes]:
    """A small tensor for each meaning of a type id."""
    seeds = {}
    for meaning in catalog.MEANINGS:
        rows, cols = (32, 256) if meaning.name in ("tl1", "tl2") else (4, 256)
        head = np.frombuffer(HEADERS.get(meaning.name, b"").ljust(64, b"\0"), np.uint8)
        size = meaning.nbytes(rows, cols, head) or 64
        table = tensor("blk.0.ffn_up.weight", (cols, rows), meaning.type_id)
        pairs = pair("general.architecture", 8, text("llama"))
        pairs += pair("tritpack.layout.tiling", 9, struct.pack("<IQ", 8, 1) + text("32x256=32,96,32"))
        data = (head.tobytes() + b"\x24" * size)[:size] if meaning.name in HEADERS else b"\x24" * size
        seeds[f"{meaning.type_id}_{meaning.name}"] = gguf(pairs + table, pairs=2, tensors=1) + data
    return seeds


def split_sets() -> Folder:
    """Two parts of one file, as llama-gguf-split names and numbers them."""
    parts = {}
    for number in range(2):
        keys = (("split.no", 2, "<H", number), ("split.count", 2, "<H", 2), ("split.tensors.count", 5, "<i", 2))
        pairs = b"".join(pair(key, kind, struct.pack(code, value)) for key, kind, code, value in keys)
        part = gguf(pairs, tensor(f"blk.{number}.ffn_up.weight", (128, 2), 36), pairs=3, tensors=1) + b"\x24" * 96
        parts[f"m-{number + 1:05}-of-00002.gguf"] = "\0" + part.decode("latin-1")
    return {"two": parts}


def gguf_models(scratch: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Whole models: shortened checkpoints as `convert` writes them."""
    seeds = {}
    for name in names:
        write_folder(shortened(folder_document(make(name, scratch / name).folder)), scratch / f"{name}-short")
        output = scratch / f"{name}.gguf"
        convert(scratch / f"{name}-short", output)
        seeds[name] = output.read_bytes()
    return seeds


def option_files(scratch: Path) -> Folder:
    """What --kernel-config, --golden, --oracle FILE.npy and --prompt-cache name."""
    tiles = {"m": 1536, "k": 4096, "bm": 256, "bk": 96, "bmm": 32}
    golden = [{"prompt": "Once", "greedy": [1, 2]}, {"tokens": [1, 2], "greedy": [3]}]
    recorded = io.BytesIO()
    np.save(recorded, np.ones((2, 2), np.float32))
    cache = scratch / "prompt.cache"
    save_prompt_cache(cached_model(), cache, version="any")
    return {
        "tilings": {"kernel_config.ini": {"Kernels_0": tiles, "Kernels_1": {**tiles, "m": 4096}}},
        "golden": {"golden.json": golden},
        "cached": {"prompt.cache": "\0" + cache.read_bytes().decode("latin-1")},
        "recorded": {"recorded.npy": "\0" + recorded.getvalue().decode("latin-1")},
    }


def write() -> None:
    """Replace the folder corpus/."""
    shutil.rmtree(CORPUS, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        documents = {"checkpoint": checkpoints, "tokenizer": tokenizers, "template": templates}
        made = {name: function(Path(scratch) / name) for name, function in documents.items()}
        made["safetensors"] = {
            name: next(value for key, value in files.items() if key.endswith(".safetensors"))
            for name, files in list(made["checkpoint"].items())[:3]
        }
        made |= {
            "oracle": made["checkpoint"],
            "option_files": option_files(Path(scratch)),
            "split_set": split_sets(),
            "hub": hub_answers.seeds(),
            "bundle": bundles.seeds(gguf_files()["36_i2_s"]),
        }
        seeds = {name: {key: compact(value) for key, value in folders.items()} for name, folders in made.items()}
        seeds |= {"gguf": gguf_files()}
        seeds |= {name: gguf_models(Path(scratch) / name, models) for name, models in MODELS.items()}
        seeds |= {name: function() for name, function in seeds_c.SEEDS.items()}
    for name, files in seeds.items():
        (CORPUS / name).mkdir(parents=True)
        for key, data in files.items():
            (CORPUS / name / key).write_bytes(data)


if __name__ == "__main__":
    write()
