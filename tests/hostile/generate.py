"""Write the files of this folder and cases.json: `python tests/hostile/generate.py`. Imports nothing of tritpack.

A .json file stands for a checkpoint folder (see tests/fuzz/inputs.py); COMMANDS says which command meets a file.
Each file is wrong in one way. A case says which command meets it, the exit code, and words that the one sentence on
stderr must contain.
"""

from __future__ import annotations

import json
import math
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
    "t158_row_length.gguf": (
        gguf(tensor("t", (1 << 45, 8), 1585), tensors=1) + b"T158" + struct.pack("<II", 1, 1) + bytes(52),
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
    "shard_name_of_surrogate.json": (shard("\ud800"), UNREADABLE, [INDEX, "surrogate pair"]),
    "shard_name_outside.json": (shard("../../etc/passwd"), UNREADABLE, [INDEX, "which is not there"]),
    "shard_name_of_folder.json": (shard("."), UNREADABLE, [INDEX, "which is not there"]),
    "shard_name_number.json": (shard(7), UNREADABLE, [INDEX, "file names"]),
}

WORDS = ["<s>", "</s>", *"abc"]
SIZE = 8


def weights() -> dict[str, object]:
    """A model.safetensors with the tensors of a BitNet model of one layer, its codes packed as in transformers."""
    header: dict[str, object] = {}
    end = 0

    def add(name: str, dtype: str, *shape: int) -> None:
        nonlocal end
        begin, end = end, end + math.prod(shape) * (1 if dtype == "U8" else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    add("model.embed_tokens.weight", "BF16", SIZE, 128)
    add("model.norm.weight", "BF16", 128)
    for norm in ("input_layernorm", "post_attention_layernorm", "self_attn.attn_sub_norm", "mlp.ffn_sub_norm"):
        add(f"model.layers.0.{norm}.weight", "BF16", 128)
    for linear in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"):
        add(f"model.layers.0.{linear}_proj.weight", "U8", 32, 128)
        add(f"model.layers.0.{linear}_proj.weight_scale", "BF16", 1)
    return {"header": header, "bytes": end}


CONFIG = {
    "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2", "hidden_size": 128,
    "intermediate_size": 128, "num_attention_heads": 1, "num_hidden_layers": 1, "num_key_value_heads": 1,
    "tie_word_embeddings": True, "vocab_size": SIZE, "max_position_embeddings": 64, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"},
}  # fmt: skip
SETTINGS = {"bos_token": "<s>", "eos_token": "</s>"}


def checkpoint(
    config: dict[str, object] | None = None,
    settings: dict[str, object] | None = None,
    model: dict[str, object] | None = None,
    **parts: object,
) -> bytes:
    """A whole checkpoint; the arguments change config.json, tokenizer_config.json and parts of tokenizer.json."""
    bpe = {"type": "BPE", "vocab": {word: i for i, word in enumerate(WORDS)}, "merges": [], **(model or {})}
    special = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    added = [{"id": i, "content": word, **special} for i, word in enumerate(WORDS[:2])]
    return json.dumps(
        {
            "config.json": {**CONFIG, **(config or {})},
            "model.safetensors": weights(),
            "tokenizer.json": {"version": "1.0", "added_tokens": added, "model": bpe, **parts},
            "tokenizer_config.json": {**SETTINGS, **(settings or {})},
        }
    ).encode()


def template(token: str) -> dict[str, object]:
    """A TemplateProcessing that puts a token before a text, and knows the ids of another."""
    single = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    known = {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": known}


def growth(steps: int) -> dict[str, object]:
    """A normalizer that makes a thousand of each letter, and again of each of these, and so on."""
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    return {"type": "Sequence", "normalizers": [step] * steps}


FILES |= {
    # The library reads these documents, and panics or aborts when it works with them.
    "tokenizer_template_entry.json": (
        checkpoint(post_processor={"type": "Sequence", "processors": [template("<x>")]}),
        UNREADABLE,
        ["tokenizer.json", "the tokenizer"],
    ),
    "tokenizer_huge_id.json": (
        checkpoint(
            settings={"tokenizer_class": "LlamaTokenizer"}, model={"vocab": {"<s>": 0, "</s>": 1, "a": (1 << 31) - 1}}
        ),
        UNREADABLE,
        ["tokenizer.json", "2147483647"],
    ),
    "tokenizer_growth.json": (checkpoint(normalizer=growth(4)), UNREADABLE, ["tokenizer.json", "memory"]),
    "tokenizer_unk_missing.json": (
        checkpoint(model={"unk_token": "<x>", "vocab": {"<s>": 0, "</s>": 1}}),
        UNREADABLE,
        ["tokenizer.json", "<x>"],
    ),
    "special_token_surrogate.json": (
        checkpoint(settings={"eos_token": "\ud800"}),
        UNREADABLE,
        ["tokenizer_config.json", "surrogate pair"],
    ),
    "added_token_surrogate.json": (
        checkpoint(added_tokens=[{"id": 0, "content": "\udfff"}]),
        UNREADABLE,
        ["tokenizer.json", "surrogate pair"],
    ),
    "vocab_size_list.json": (checkpoint({"vocab_size": [None]}), UNREADABLE, ["config.json", "vocab_size"]),
    "vocab_size_outside.json": (
        checkpoint({"vocab_size": [None], "text_config": CONFIG}),
        UNREADABLE,
        ["vocab_size"],
    ),
}


def npy(header: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(16)


def tilings(value: str, *lines: str) -> bytes:
    """A kernel_config.ini with one section."""
    sizes = {"m": value, "k": "128", "bm": "128", "bk": "64", "bmm": "64"}
    return "\n".join(["[Kernels_0]", *(f"{key} = {size}" for key, size in sizes.items()), *lines]).encode()


def spared(pattern: str) -> bytes:
    """A checkpoint whose list of modules that stay floats has this entry."""
    quantization = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
    return checkpoint({"quantization_config": {**quantization, "modules_to_not_convert": ["lm_head", pattern]}})


GOLDEN, TILINGS, RECORD = "not a list of golden tokens", "not a kernel_config.ini", "not a .npy file"
FILES |= {
    "spared_many_stars.json": (spared(".*a" * 20 + "x"), UNSUPPORTED, ["modules_to_not_convert"]),
    "spared_nearly_legal.json": (spared(".*" * 40 + "!"), UNSUPPORTED, ["modules_to_not_convert"]),
    "golden_infinity.golden": (b'[{"tokens": [1], "greedy": [1e400]}]', UNREADABLE, [GOLDEN]),
    "golden_surrogate.golden": (b'[{"prompt": "\\ud800", "greedy": [1]}]', UNREADABLE, [GOLDEN, "surrogate pair"]),
    "tilings_growth.ini": (
        tilings("%(a)s", *(f"{name} = {f'%({of})s' * 10}" for name, of in zip("abcdefg", "bcdefgk"))),
        UNREADABLE,
        [TILINGS],
    ),
    "tilings_long_line.ini": (tilings("128", "a" + " " * 20000 + "b"), UNREADABLE, [TILINGS, "line"]),
    "record_beyond_memory.npy": (
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 8)}\n"),
        UNREADABLE,
        [RECORD],
    ),
    "record_cut.npy": (npy("{'descr': '<f4'"), UNREADABLE, [RECORD]),
}

SOUND = "SOUND"
VERIFY = ["verify", SOUND, "--source", SOUND, "--json", "--level"]
COMMANDS = {
    ".json": ["convert"],
    ".gguf": ["inspect"],
    ".golden": [*VERIFY, "generation", "--golden"],
    ".ini": ["repack", SOUND, "--outtype", "tl2", "-o", "OUT", "--kernel-config"],
    ".npy": [*VERIFY, "logits", "--tokens", "0,1", "--oracle"],
}
"""By the end of a file's name; the file comes last. SOUND is the file of the checkpoint without changes."""


def write() -> None:
    """Write every file, and the table of cases."""
    cases = []
    for name, (data, code, words) in FILES.items():
        (FOLDER / name).write_bytes(data)
        cases.append({"file": name, "command": COMMANDS[Path(name).suffix], "exit_code": code, "words": words})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (FOLDER / "cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    write()
