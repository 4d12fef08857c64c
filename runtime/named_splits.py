"""The pre-tokenizers that llama.cpp knows by name, as pre-tokenizers of the `tokenizers` library.

`tokenizer.ggml.pre` holds only a name. llama.cpp's src/llama-vocab.cpp says which regular expressions it stands for,
and src/unicode.cpp how they are run: blanks outside ASCII are one character, categories of letters such as \\p{Lu} are
\\p{L}, and some names have code of their own. PRE_TOKENIZERS cuts as that code does. Names that text cannot tell apart
share one entry, under the name that most files carry; ALIASES has the others.
"""

from __future__ import annotations

from typing import Any

# -- parts that many patterns share ------------------------------------------------------------------------------------

_CONTRACTION = r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+"
_BLANKS = r"\s+(?!\S)|\s+"
_LINES_AND_BLANKS = rf"\s*[\r\n]+|{_BLANKS}"
_PLAIN = rf"{_SYMBOLS}[\r\n]*|{_LINES_AND_BLANKS}"
_WITH_SLASHES = rf"{_SYMBOLS}[\r\n/]*|{_LINES_AND_BLANKS}"

_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+|{_SYMBOLS}|{_BLANKS}"
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_ASCII_MARKS = r"[!-/:-@\[-`{-~]"
_MARK_AND_WORD = rf"{_ASCII_MARKS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
_DEEPSEEK3 = rf"{_MARK_AND_WORD}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES_AND_BLANKS}"
_HAN_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DOWN_TO_THREE_LEFT = r"\p{N}{1,2}(?=(?:\p{N}{3})*(?!\p{N}))|\p{N}{3}"
_SENTENCE = " ?[^\\s(|.,!?…。\uff0c、।۔،)]+"

# Letters with case, as DeepSeek's first tokenizer lists them.
_CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    "\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a"
    "\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_MARKS = "!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f"
_ASIAN = "\u0800-\u9fa5\uac00-\ud7ff"
_SCRIPTS_OF_AFMOE = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_RUNS_OF_YOUTU = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01…“”‘’—\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|"
    + _HAN_AND_KANA
)
_HAN = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f\U0002b820-\U0002ceaf"
    "\U0002ceb0-\U0002ebef\uf900-\ufaff\U0002f800-\U0002fa1f"
)


def _cased_words(upper: str, lower: str, after: str = "") -> str:
    """Words of capitals and then small letters, or of capitals alone: `fooBar` is two."""
    first = r"[^\r\n\p{L}\p{N}]?"
    return f"{first}{upper}*{lower}+{after}|{first}{upper}+{lower}*{after}"


_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_MAYBE_CONTRACTION = f"(?:{_CONTRACTION})?"
_O200K = rf"{_cased_words(_UPPER, _LOWER, _MAYBE_CONTRACTION)}|\p{{N}}{{1,3}}|{_WITH_SLASHES}"
_NOT_SMALL, _NOT_CAPITAL = r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]"
_WORD_WITH_MARKS = rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+{_MAYBE_CONTRACTION}"


def _kimi(words: str) -> str:
    return rf"[{_HAN}]+|{words}|\p{{N}}{{1,3}}|{_PLAIN}"


# -- the tables --------------------------------------------------------------------------------------------------------


def _split(pattern: str, behavior: str = "Isolated") -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def _split_then_bytes(*steps: str | dict[str, Any]) -> dict[str, Any]:
    """Pre-tokenizer JSON that splits by each regular expression in turn, then maps bytes to printable characters."""
    splits = [_split(step) if isinstance(step, str) else step for step in steps]
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*splits, to_bytes]}


# llama.cpp joins the text before a run of digits with the first of its groups; later patterns cut it again.
_DIGITS_FROM_THE_RIGHT = _split(_DOWN_TO_THREE_LEFT, "MergedWithPrevious")

PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "llama-bpe": _split_then_bytes(_LLAMA3_SPLIT),
    "qwen2": _split_then_bytes(_QWEN2_SPLIT),
    "qwen35": _split_then_bytes(_QWEN35_SPLIT),
    "gpt-2": _split_then_bytes(_GPT2),
    "starcoder": _split_then_bytes(r"\p{N}", _GPT2),
    "falcon": _split_then_bytes(r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    "default": _split_then_bytes(r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    "deepseek-v3": _split_then_bytes(r"\p{N}{1,3}", _HAN_AND_KANA, _DEEPSEEK3),
    "deepseek-llm": _split_then_bytes(
        r"[\r\n]",
        rf"\s?[{_CASED}]+",
        rf"\s?[{_DEEPSEEK_MARKS}、。]+",
        r"\s+\z",
        rf"[{_ASIAN}&&[^\s]]+",
        r"\p{N}+",
    ),
    "deepseek-coder": _split_then_bytes(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", rf"[{_ASIAN}&&[^\s]]+", r"\p{N}"),
    "tekken": _split_then_bytes(rf"{_cased_words(_NOT_SMALL, _NOT_CAPITAL)}|\p{{N}}|{_WITH_SLASHES}"),
    "gpt-4o": _split_then_bytes(
        rf"{_cased_words(_NOT_SMALL, _NOT_CAPITAL, _MAYBE_CONTRACTION)}|\p{{N}}{{1,3}}|{_WITH_SLASHES}"
    ),
    "granite-embed-multi-97m": _split_then_bytes(
        _cased_words(r"[\p{L}\p{M}&&[^a-z]]", r"[\p{L}\p{M}&&[^A-Z]]", _MAYBE_CONTRACTION)
        + rf"|\p{{N}}{{1,3}}|{_WITH_SLASHES}"
    ),
    "tiny_aya": _split_then_bytes(_DIGITS_FROM_THE_RIGHT, rf"{_WORD_WITH_MARKS}|\p{{N}}{{1,3}}|{_WITH_SLASHES}"),
    "youtu": _split_then_bytes(_RUNS_OF_YOUTU, rf"{_WORD_WITH_MARKS}|\p{{N}}|{_WITH_SLASHES}"),
    "kimi-k2": _split_then_bytes(_kimi(rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}&&[^{_HAN}]]+{_MAYBE_CONTRACTION}")),
    "jais-2": _split_then_bytes(
        rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}|{_SYMBOLS}[\r\n]*|\s*[\r\n]+|"
        + "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
        + r"|\s"
    ),
    "seed-coder": _split_then_bytes(rf"{_CONTRACTION}|{_WORD}|\p{{N}}|{_SYMBOLS}|{_LINES_AND_BLANKS}"),
    "ufakzeka": _split_then_bytes(rf"{_WORD}|\p{{N}}|{_PLAIN}"),
    "minicpm5": _split_then_bytes(r"\p{N}{1,3}", rf"{_CONTRACTION}|{_WORD}|\p{{N}}+|{_PLAIN}"),
    "exaone-moe": _split_then_bytes(
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}|{_SYMBOLS}[\r\n/]?"
        rf"|\s*[\r\n]|{_BLANKS}"
    ),
    "laguna": _split_then_bytes(r"\n+", _QWEN2_SPLIT),
    "spark2_5": _split_then_bytes(
        r"\p{N}{1,3}", _HAN_AND_KANA, rf"{_MARK_AND_WORD}| ?[\p{{P}}\p{{S}}]+|[\r\n]|{_BLANKS}", r"\p{N}"
    ),
    "afmoe": _split_then_bytes(_DIGITS_FROM_THE_RIGHT, _SCRIPTS_OF_AFMOE, _DEEPSEEK3),
    "superbpe": _split_then_bytes(r"\p{N}+", r"(?=([0-9]{3})+(?![0-9]))"),
    "bloom": _split_then_bytes(_SENTENCE),
    "viking": _split_then_bytes(_SENTENCE, r"\p{N}"),
    "chameleon": _split_then_bytes(
        "<sentinel:[0-9]+>", "(IMGIMG)([A-I]{1,4})Z", r"([\t\n]|    |  )", r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", _GPT2
    ),
}
"""Name in `tokenizer.ggml.pre` -> pre-tokenizer JSON that cuts as llama.cpp does."""

PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt-4o": _split_then_bytes(_O200K),
    "tekken": _split_then_bytes(rf"{_cased_words(_UPPER, _LOWER)}|\p{{N}}|{_WITH_SLASHES}"),
    "tiny_aya": _split_then_bytes(r"\d{1,3}(?=(?:\d{3})*\b)", _O200K),
    "youtu": _split_then_bytes(_RUNS_OF_YOUTU, _O200K.replace(r"\p{N}{1,3}", r"\p{N}")),
    "kimi-k2": _split_then_bytes(
        _kimi(_cased_words(rf"[{_UPPER}&&[^\p{{Han}}]]", rf"[{_LOWER}&&[^\p{{Han}}]]", _MAYBE_CONTRACTION)).replace(
            f"[{_HAN}]", r"\p{Han}"
        )
    ),
    "afmoe": _split_then_bytes(_DOWN_TO_THREE_LEFT, _SCRIPTS_OF_AFMOE, _DEEPSEEK3),
    "superbpe": _split_then_bytes(r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
    "deepseek-llm": _split_then_bytes(
        r"[\r\n]",
        rf"\s?[{_CASED}]+",
        rf"\s?[{_DEEPSEEK_MARKS}" + "\u3000-\u3002]+",
        r"\s+$",
        f"[{_ASIAN}]+",
        r"\p{N}",
    ),
    "deepseek-coder": _split_then_bytes(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", f"[{_ASIAN}]+", r"\p{N}"),
}
"""Name -> pre-tokenizer of the published checkpoints for which llama.cpp has this name, where it cuts otherwise."""

ALIASES: dict[str, str] = {
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "falcon_e", "falcon-e", "falcon-h1", "pixtral"), "llama-bpe"),
    **dict.fromkeys(("midm-2.0", "lfm2", "jina-v5-nano", "glm4", "glm5"), "llama-bpe"),
    **dict.fromkeys(("smaug-bpe", "dbrx", "chatglm-bpe"), "llama-bpe"),
    **dict.fromkeys(("deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "kormo", "f2llmv2"), "qwen2"),
    **dict.fromkeys(("solar-open", "grok-2", "bailingmoe", "bailingmoe2", "llada-moe"), "qwen2"),
    **dict.fromkeys(("olmo", "mpt", "phi-2", "jais", "trillion", "gigachat", "exaone4", "a.x-4.0", "mellum"), "gpt-2"),
    **dict.fromkeys(("jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code"), "gpt-2"),
    **dict.fromkeys(("modern-bert", "roberta-bpe", "granite-docling"), "gpt-2"),
    **dict.fromkeys(("refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"), "starcoder"),
    **dict.fromkeys(("hunyuan-dense", "joyai-llm", "hy_v4"), "deepseek-v3"),
    **dict.fromkeys(("llama4", "kanana2", "talkie", "minimax-m2"), "gpt-4o"),
    **dict.fromkeys(("poro-chat", "gpt3-finnish"), "bloom"),
    "cohere2moe": "tiny_aya",
}
"""Other name -> the name that cuts in the same way. "falcon_e" exists in forks of llama.cpp only."""

RAW_NAMES = ("gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace")
"""Names whose merges run on characters and not on bytes: no byte-level tokenizer has them."""

WITHOUT_IGNORE_MERGES = ("smaug-bpe", "dbrx", "chatglm-bpe")
"""Of the names of "llama-bpe", those that always merge; the others take a piece that is a token as that token."""
IGNORE_MERGES = ("llama-bpe", "tekken", "minicpm5", "youtu", "granite-embed-multi-97m")
ADD_BOS = ("llama-bpe", "tekken", "chameleon")
"""Names for which llama.cpp adds a BOS where the file does not say."""
WITHOUT_BOS = ("glm4", "glm5")
"""Of the names of "llama-bpe", those to which it adds none."""
