"""Small tokenizers of every kind that ternary checkpoints ship, as the files a repository would hold.

They are trained here, so nothing is downloaded; the same call writes the same bytes. Each kind keeps what makes its
family awkward: where the special tokens lie, what goes around a text, which files there are.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

KINDS = ("llama3", "falcon3", "qwen2", "neox", "gemma", "llama2", "minicpm")

CORPUS = [
    "The quiet machine counted 12 lanterns near the harbour wall, and nobody asked why.",
    "the keeper of the lanterns said that the other lights were all there, and the water was quiet again",
    "def add(a, b):\n    return a + b\n\nfor item in range(10):\n    print(item, 'is', add(item, 1))\n",
    "Ёлка и море, 海と港, 한국어 문장, हिन्दी, naïve café, it's 2024 and they've 365 days.",
]
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_BLANKS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = _CONTRACTIONS + r"|\p{N}{1,3}" + _BLANKS
QWEN2_SPLIT = _CONTRACTIONS + r"|\p{N}" + _BLANKS

_RESERVED = [f"<|reserved_special_token_{i}|>" for i in range(8)]
_LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", *_RESERVED[:4], "<|start_header_id|>", "<|end_header_id|>"]
_LLAMA3 += ["<|eom_id|>", "<|eot_id|>", *_RESERVED[4:]]
_FALCON = ["TITLE", "ABSTRACT", "INTRODUCTION", "SUMMARY", "COMMENT", "ANSWER", "QUESTION", "DOMAIN", "EMAIL_ADDRESS"]
_FALCON3 = [*(f">>{name}<<" for name in (*_FALCON, "IP_ADDRESS")), "<|startoftext|>", "<|endoftext|>"]
_FALCON3 += [">>UNUSED_0<<", ">>UNUSED_1<<", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>"]
_QWEN2 = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"]
_QWEN2_PLAIN = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
_GEMMA_TURNS = ["<start_of_turn>", "<end_of_turn>"]
_GEMMA_RUNS = ["\n\n", "\n\n\n", "▁▁", "▁▁▁▁"]
_MINICPM = ["<|im_end|>", "<|im_start|>", "<|tool_call|>", "<|execute_start|>", "<|execute_end|>", "<|fim_prefix|>"]
SPACE_RUNS = [" " * count for count in range(24, 1, -1)]

# Word for word what the families' repositories say in fewer words than they do.
BITNET_CHAT = (
    "{% for m in messages %}{% set line = m['role'] | capitalize + ': ' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set line = bos_token + line %}{% endif %}{{ line }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
FALCON_CHAT = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|assistant|>\n' + m['content'] + eos_token + '\n' }}"
    "{% else %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
CHATML = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def write_tokenizer(
    folder: Path, kind: str, vocab_size: int | None = None, *, append_eos: bool = False
) -> dict[str, Any]:
    """Write the tokenizer files and generation_config.json of `kind` (see KINDS) into `folder`.

    Returns the entries of config.json that go with them. `vocab_size` pads the embedding beyond the tokens (default:
    as the family does). `append_eos`: the embedding model's variant of qwen2 or gemma, which ends every text by itself
    and has neither a chat template nor a generation_config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made, settings, generation = _MAKERS[kind](folder)
    ids = made.get_vocab(with_added_tokens=True)
    config = _CONFIGS[kind](ids)
    if append_eos:
        settings["eos_token"] = end = {"qwen2": "<|endoftext|>", "gemma": "<eos>"}[kind]
        config["eos_token_id"] = ids[end]
        del settings["chat_template"]
        _surround(made, ["<bos>"] if kind == "gemma" else [], [end])
        settings |= {"add_eos_token": True} if kind == "gemma" else {}
    else:
        _write(folder / "generation_config.json", {**generation, "transformers_version": "4.51.0"})
    made.save(str(folder / "tokenizer.json"))
    settings["added_tokens_decoder"] = {
        str(token_id): {flag: getattr(token, flag) for flag in _FLAGS}
        for token_id, token in sorted(made.get_added_tokens_decoder().items())
    }
    _write(folder / "tokenizer_config.json", settings)
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    _write(folder / "special_tokens_map.json", {name: settings[name] for name in names if settings.get(name)})
    used = max(ids.values()) + 1
    if vocab_size is None:
        vocab_size = -(-(used + 1) // 32) * 32 if kind in ("qwen2", "neox") else used
    assert vocab_size >= used, f"the {kind} tokenizer has {used} tokens"
    return {**config, "vocab_size": vocab_size}


_FLAGS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
_CONFIGS: dict[str, Any] = {
    "llama3": lambda ids: {"bos_token_id": ids["<|begin_of_text|>"], "eos_token_id": ids["<|end_of_text|>"]},
    "falcon3": lambda ids: {"bos_token_id": 1, "eos_token_id": 11},  # 1 is a heading: configs of this family are noise
    "qwen2": lambda ids: {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]},
    "neox": lambda ids: {"bos_token_id": 0, "eos_token_id": 0},
    "gemma": lambda ids: {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0},
    "llama2": lambda ids: {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": ids["<pad>"]},
    "minicpm": lambda ids: {"bos_token_id": 1, "eos_token_id": [2, ids["<|im_end|>"]], "pad_token_id": 2},
}


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")


def _special(texts: Sequence[str]) -> list[AddedToken]:
    return [AddedToken(text, normalized=False, special=True) for text in texts]


def _plain(texts: Sequence[str]) -> list[AddedToken]:
    return [AddedToken(text, normalized=False, special=False) for text in texts]


def _surround(made: Any, before: Sequence[str], after: Sequence[str]) -> None:
    """A post-processor that puts tokens around every text."""
    template = [*before, "$A", *after]
    used = [(text, made.token_to_id(text)) for text in dict.fromkeys([*before, *after])]
    pair = [*template, *(f"{part}:1" for part in [*before, "$B", *after])]
    around = processors.TemplateProcessing(single=template, pair=pair, special_tokens=used)
    byte_level = isinstance(made.decoder, decoders.ByteLevel)
    made.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), around] if byte_level else [around]
    )


@functools.cache
def _trained(size: int, split: str | None, nfc: bool, lowest: tuple[str, ...] = ()) -> str:
    """tokenizer.json of a byte-level BPE; a split pattern of None is GPT-2's own."""
    made = tokenizers.Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC() if nfc else None
    if split is None:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        cut = pre_tokenizers.Split(tokenizers.Regex(split), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(lowest),
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    text: str = made.to_str()
    return text


def _byte_level(
    size: int, split: str | None, nfc: bool, lowest: Sequence[str] = (), ignore_merges: bool = False
) -> Any:
    document = json.loads(_trained(size, split, nfc, tuple(lowest)))
    document["model"]["ignore_merges"] = ignore_merges
    return tokenizers.Tokenizer.from_str(json.dumps(document))


Made = tuple[Any, dict[str, Any], dict[str, Any]]  # the tokenizer, tokenizer_config.json, generation_config.json


def _llama3(folder: Path) -> Made:
    """microsoft/bitnet-b1.58-2B-4T: specials after the base vocabulary, BOS by the post-processor, two end tokens."""
    made = _byte_level(360, LLAMA3_SPLIT, nfc=False, ignore_merges=True)
    made.add_special_tokens(_special(_LLAMA3))
    _surround(made, ["<|begin_of_text|>"], [])
    settings = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "chat_template": BITNET_CHAT}
    stops = [made.token_to_id("<|end_of_text|>"), made.token_to_id("<|eot_id|>")]
    generation = {"bos_token_id": made.token_to_id("<|begin_of_text|>"), "eos_token_id": stops}
    return made, {**settings, "tokenizer_class": "PreTrainedTokenizerFast"}, generation


def _falcon3(folder: Path) -> Made:
    """Falcon3 and Falcon-E: specials are the lowest ids, nothing goes before a text."""
    made = _byte_level(384, LLAMA3_SPLIT, nfc=False, lowest=_FALCON3)
    made.add_special_tokens(_special(_FALCON3))
    settings = {"add_prefix_space": False, "bos_token": None, "eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    settings |= {"chat_template": FALCON_CHAT, "tokenizer_class": "PreTrainedTokenizerFast"}
    return made, settings, {"bos_token_id": 1, "eos_token_id": 11}


def _qwen2(folder: Path) -> Made:
    """Qwen2 and Qwen3 (Bonsai, bitnet-embedding-0.6b): NFC, digits one by one, added tokens that are not special."""
    made = _byte_level(360, QWEN2_SPLIT, nfc=True)
    base = json.loads(made.to_str())["model"]
    made.add_special_tokens(_special(_QWEN2))
    made.add_tokens(_plain(_QWEN2_PLAIN))
    _write(folder / "vocab.json", base["vocab"])
    merges = "".join(f"{' '.join(pair)}\n" for pair in base["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    _write(folder / "added_tokens.json", {text: made.token_to_id(text) for text in [*_QWEN2, *_QWEN2_PLAIN]})
    settings = {"add_bos_token": False, "add_prefix_space": False, "additional_special_tokens": _QWEN2[1:]}
    settings |= {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None}
    settings |= {"chat_template": CHATML, "errors": "replace", "tokenizer_class": "Qwen2Tokenizer"}
    end, turn = made.token_to_id("<|endoftext|>"), made.token_to_id("<|im_end|>")
    return made, settings, {"bos_token_id": end, "pad_token_id": end, "eos_token_id": [turn, end]}


def _neox(folder: Path) -> Made:
    """GPT-NeoX (TriLM): NFC, runs of spaces as added tokens, one token for everything special, no chat."""
    made = _byte_level(370, None, nfc=True, lowest=["<|endoftext|>", "<|padding|>"])
    made.add_special_tokens(_special(["<|endoftext|>", "<|padding|>"]))
    made.add_tokens(_plain(SPACE_RUNS))
    end = "<|endoftext|>"
    settings = {"add_prefix_space": False, "bos_token": end, "eos_token": end, "unk_token": end}
    return made, {**settings, "tokenizer_class": "GPTNeoXTokenizer"}, {"bos_token_id": 0, "eos_token_id": 0}


@functools.cache
def train_sentencepiece(size: int, **options: Any) -> bytes:
    """Bytes of a sentencepiece model as Llama 2's was trained, `options` aside."""
    import sentencepiece

    model = io.BytesIO()
    usual = {"model_type": "bpe", "byte_fallback": True, "split_digits": True, "add_dummy_prefix": True}
    usual |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "pad_id": -1}
    usual |= {"allow_whitespace_only_pieces": True, "character_coverage": 1.0, "num_threads": 1, "minloglevel": 2}
    sentences = (line for text in CORPUS for line in text.split("\n"))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_writer=model, vocab_size=size, **{**usual, **options}
    )
    return model.getvalue()


def _of_sentencepiece(raw: bytes, prefix: bool) -> Any:
    """The tokenizers library's twin of a sentencepiece BPE model, in the way transformers 4 converted it."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_proto=raw)
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for i, piece in enumerate(pieces):
        if not (model.is_byte(i) or model.is_control(i) or model.is_unknown(i)):
            halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
            merges += [(-model.get_score(i), *pair) for pair in halves if pair[0] in ids and pair[1] in ids]
    merges.sort(key=lambda merge: (merge[0], -len(merge[1]), -len(merge[2])))  # leftmost first, as sentencepiece
    bpe = models.BPE(
        ids, [(left, right) for _, left, right in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    made = tokenizers.Tokenizer(bpe)
    escape = normalizers.Replace(" ", "▁")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), escape]) if prefix else escape
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return made


def _gemma(folder: Path) -> Made:
    """Gemma 3 (bitnet-embedding-270m): no space before a text, four specials lowest, runs of blanks as tokens."""
    fixed = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "bos_piece": "<bos>", "eos_piece": "<eos>"}
    symbols = ["<mask>", *_GEMMA_TURNS, *_GEMMA_RUNS]
    raw = train_sentencepiece(400, add_dummy_prefix=False, user_defined_symbols=",".join(symbols), **fixed)
    (folder / "tokenizer.model").write_bytes(raw)
    made = _of_sentencepiece(raw, prefix=False)
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.add_special_tokens(_special(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *_GEMMA_TURNS]))
    made.add_tokens(_plain(_GEMMA_RUNS))
    _surround(made, ["<bos>"], [])
    settings = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>", "eos_token": "<eos>"}
    settings |= {"pad_token": "<pad>", "unk_token": "<unk>", "spaces_between_special_tokens": False}
    settings |= {"chat_template": GEMMA_CHAT, "tokenizer_class": "GemmaTokenizer", "sp_model_kwargs": {}}
    turn = made.token_to_id("<end_of_turn>")
    return made, settings, {"bos_token_id": 2, "eos_token_id": [1, turn], "pad_token_id": 0}


def _llama2(folder: Path) -> Made:
    """1bitLLM: Llama 2's sentencepiece with two tokens added, a class nobody knows, ids that disagree, no chat."""
    raw = train_sentencepiece(384)
    (folder / "tokenizer.model").write_bytes(raw)
    made = _of_sentencepiece(raw, prefix=True)
    made.add_special_tokens(_special(["<unk>", "<s>", "</s>", "<pad>", "</line>"]))
    _write(folder / "added_tokens.json", {text: made.token_to_id(text) for text in ("<pad>", "</line>")})
    _surround(made, ["<s>"], [])
    settings = {"add_bos_token": True, "add_eos_token": False, "add_prefix_space": True, "legacy": False}
    settings |= {"additional_special_tokens": ["</line>"], "bos_token": "<s>", "eos_token": "</s>"}
    settings |= {"pad_token": "<pad>", "unk_token": "<unk>", "sp_model_kwargs": {}}
    return made, {**settings, "tokenizer_class": "BitnetTokenizer"}, {
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
    }  # fmt: skip


def _minicpm(folder: Path) -> Made:
    """MiniCPM (BitCPM): the same kind with ChatML's tokens behind the vocabulary, and two end tokens."""
    raw = train_sentencepiece(384)
    (folder / "tokenizer.model").write_bytes(raw)
    made = _of_sentencepiece(raw, prefix=True)
    made.add_special_tokens(_special(["<unk>", "<s>", "</s>", *_MINICPM]))
    _surround(made, ["<s>"], [])
    settings = {"add_bos_token": True, "add_eos_token": False, "legacy": True, "additional_special_tokens": _MINICPM}
    settings |= {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "</s>", "unk_token": "<unk>"}
    settings |= {"chat_template": CHATML, "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer"}
    return made, settings, {"bos_token_id": 1, "eos_token_id": [2, made.token_to_id("<|im_end|>")]}


_MAKERS: dict[str, Any] = {
    "llama3": _llama3,
    "falcon3": _falcon3,
    "qwen2": _qwen2,
    "neox": _neox,
    "gemma": _gemma,
    "llama2": _llama2,
    "minicpm": _minicpm,
}
