"""The five answers of `tritpack inspect` in plain words: what a file is, whether it is intact, what runs it, what it
needs, and where it comes from. They are made of the result alone, so JSON, terminal, Markdown and HTML say the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tritpack.converter.cli.human import count, listed, size
from tritpack.converter.inspect.needs_text import needs_sentences
from tritpack.converter.inspect.origin import FAMILY_KEY, is_known
from tritpack.converter.sources.hybrid_gguf import left_out_words
from tritpack.formats.integrity import SHOWN

Result = Mapping[str, Any]
VERDICTS = {
    "right": "Right in {}.",
    "wrong": "Wrong in {}: the file loads there without an error, but what it answers is wrong, often nonsense.",
    "refuses": "Refused by {}.",
    "unknown": "Not tried in {}.",
}
ROTATED = {"wrong": "Loads and talks nonsense in {}: it lacks the transform."}
"""The same of weights in a rotated basis, where they differ."""
LONGEST = 200
"""Characters of a text of the file within a sentence."""
NOT_CHECKED, NOT_READ = "hashes not checked (--stats)", "weights not read (--stats)"
MADE_FROM = ("tritpack.version", "tritpack.source.form", FAMILY_KEY, "general.source.sha256")
"""Keys of tritpack's own files: who made them, and of what."""
TOKENIZERS = {"gpt2": "byte-level BPE (gpt2)", "llama": "SentencePiece (llama)"}
"""Kinds of tokenizers as GGUF names them -> as people do."""
CONVERTED = ("ternary", "master_weights")
"""Verdicts on a checkpoint's weights whose advice is to convert it."""
AGAIN = "Get it again, or make it anew."
VERSION = re.compile(r" (until|since|before) ")
"""What separates an engine's name from its version."""


def answers(result: Result) -> dict[str, str]:
    """Return the five answers by their names, in the order in which they are shown."""
    return {name: " ".join(sentences) for name, sentences in answer_sentences(result).items()}


def answer_sentences(result: Result) -> dict[str, list[str]]:
    """Return the sentences of each answer."""
    return {
        "what": _what(result),
        "intact": [_intact(result)],
        "runs_in": _runs_in(result),
        "needs": _needs(result),
        "from": _origin(result),
    }


def _what(result: Result) -> list[str]:
    name = f"{_cut(result['name'])}: " if result["name"] else ""
    without = result["parameters"] - result["embedding_parameters"]
    parameters = f"{count(result['parameters'])} parameters ({count(without)} without embeddings)"
    context = result["context_length"]
    ternarity = result.get("ternarity")
    can_follow = ternarity and (
        result["model"] or result["kind"] != "checkpoint" or ternarity["verdict"] not in CONVERTED
    )
    return [
        f"{name}{_kind(result)} with {parameters}, {_container(result)}.",
        _weights(result),
        *([f"Weights in a rotated basis ({rotation})."] if (rotation := result.get("rotation")) else []),
        *([_codes(codes)] if (codes := result.get("codes")) else []),
        *([f"In doubt: {doubt}."] if (doubt := result.get("doubt")) else []),
        *(f"{words[0].upper()}{words[1:]}." for words in left_out_words(result.get("left_out") or {})),
        *([f"Ternary: {ternarity['summary']}{_looked_at(ternarity)}."] if ternarity else []),
        *([f"Advice: {ternarity['advice']}."] if ternarity and can_follow else []),
        f"{_tokenizer(result['tokenizer'])} {f'Context: up to {context:,} tokens.' if context else ''}".rstrip(),
    ]


def _looked_at(ternarity: Mapping[str, Any]) -> str:
    """Of weights that stay on a server, that some were looked at."""
    if not ternarity["read"] < ternarity["linears"]:
        return ""
    return f" (judged by some rows of {ternarity['read']} of {ternarity['linears']} linear layers)"


def _kind(result: Result) -> str:
    if model := result["model"]:
        return "an embedding model" if model["pooling"] != "none" else "a language model"
    if isinstance(result["architecture"], str):
        return f"tensors of a model of architecture {_cut(result['architecture'])}"
    return "tensors of a model of unknown architecture"


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _container(result: Result) -> str:
    if result["kind"] == "checkpoint":
        recognised = f", recognised as {result['recognised']}" if result["recognised"] else ""
        return f"a checkpoint{recognised}"
    if result["kind"] == "weights":
        return "a safetensors file by itself"
    if part := result.get("part"):
        return f"one of {part['count']} parts of a GGUF file"
    return f"a GGUF file in {len(result['files'])} parts" if len(result["files"]) > 1 else "a GGUF file"


def _weights(result: Result) -> str:
    """How the weights are stored."""
    bits, layouts = result["ternary_bits_per_weight"], result["layouts"]
    if not layouts:
        return "It holds no tensors."
    if not bits and (result.get("ternarity") or {}).get("verdict") in CONVERTED:
        return f"Its tensors are stored as {listed(list(layouts))}."
    if not bits:
        return f"No weights are ternary: its tensors are stored as {listed(list(layouts))}."
    ternary = result["ternary_layouts"]
    if (result.get("ternarity") or {}).get("verdict") == "master_weights":
        return (
            f"{count(result['ternary_weights'])} weights become ternary (-1, 0 or +1): they are {listed(ternary)} here."
        )
    others = [layout for layout in layouts if layout not in ternary]
    dialects = f" (the format of {listed(result['dialects'])})" if result.get("dialects") else ""
    rest = f"; the rest is {listed(others)}" if others else ""
    stored = f"stored as {listed(ternary)}{dialects} in {bits:.2f} bits each"
    return f"{count(result['ternary_weights'])} weights are ternary (-1, 0 or +1), {stored}{rest}."


def _codes(codes: Mapping[str, int]) -> str:
    """The share of zeros, and codes that no ternary model has."""
    legal = codes["minus"] + codes["zero"] + codes["plus"]
    zeros = f"{100 * codes['zero'] / legal:.2f} % of the codes are 0" if legal else "No tensor could be decoded"
    return f"{zeros}; {codes['code_3'] or 'none'} of them {'is' if codes['code_3'] in (0, 1) else 'are'} 3."


def _tokenizer(tokenizer: Mapping[str, Any] | None) -> str:
    if tokenizer is None:
        return "It has no tokenizer."
    kind = TOKENIZERS.get(tokenizer["model"], _cut(tokenizer["model"]))
    if tokenizer["pre"] not in (None, "", "default"):
        kind += f" that splits text like {_cut(tokenizer['pre'])}"
    tokens = f", {tokenizer['tokens']:,} tokens" if tokenizer["tokens"] else ""
    return f"Tokenizer: {kind}{tokens}."


def _intact(result: Result) -> str:
    damage, tensors = result["damage"], len(result["tensors"])
    if changed := (result.get("integrity") or {}).get("differing"):
        were = "was" if len(changed) == 1 else "were"
        return f"No: {len(changed)} of {tensors} tensors {were} changed after the file was written. {AGAIN}"
    if damage:
        more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
        return f"No: {damage[0].rstrip('.')}{more}. {AGAIN}"
    if part := result.get("part"):
        missing = f", of which {len(part['missing'])} are not here" if part["missing"] else ""
        return f"Not known: this is one of {part['count']} parts{missing}; {NOT_CHECKED}."
    if not result["decoded"]:
        complete = "every tensor of the model is there and lies" if result["model"] else "every tensor lies"
        left = NOT_CHECKED if result["kind"] == "gguf" else NOT_READ
        return f"It looks whole: {complete} within the file; {left}."
    if result.get("integrity"):
        return f"Yes: all {tensors} tensors have the hashes that the file records."
    return (
        f"No fault found: the ternary ones of its {tensors} tensors were decoded. No hashes are recorded, so a weight "
        "that was changed to another valid one would not be noticed."
    )


def runs_in(result: Result) -> list[str]:
    """Return the engines of a packed file, one sentence per verdict. None of them runs a damaged file right."""
    names = {verdict: _engines(result["engines"], verdict) for verdict in VERDICTS}
    if result["damage"]:
        copy = f" An undamaged copy would be right in {names['right']}." if names["right"] else ""
        return [f"Nothing runs it right: the file is damaged.{copy}"]
    sentences = {**VERDICTS, **(ROTATED if result.get("rotation") else {})}
    said = [sentence.format(names[verdict]) for verdict, sentence in sentences.items() if names[verdict]]
    if nonsense := result.get("nonsense_as"):
        said.append(f"Repacked, it would load and talk nonsense in {', '.join(nonsense)}.")
    return said


def _engines(engines: Sequence[Mapping[str, Any]], verdict: str) -> str:
    """The engines with a verdict, separated by commas; one of which all versions have it without its versions."""
    names: dict[str, None] = {}
    for row in engines:
        if row["verdict"] == verdict:
            name = VERSION.split(row["engine"])[0]
            versions = {other["verdict"] for other in engines if VERSION.split(other["engine"])[0] == name}
            names[name if len(versions) == 1 else row["engine"]] = None
    return ", ".join(names)


def _runs_in(result: Result) -> list[str]:
    if result["kind"] != "gguf":
        return _folder_runs_in(result)
    return [*runs_in(result), "Why, and how to make a file for another: --engines."] if result["engines"] else []


def _folder_runs_in(result: Result) -> list[str]:
    """What runs a checkpoint as it is, and what makes a file for the others."""
    if result["kind"] == "weights":
        return ["Nothing runs a weight file by itself: give the folder or repository with its config.json."]
    if result["damage"]:
        return ["Nothing runs it right: the checkpoint is damaged."]
    if not result["model"]:
        return ["Nothing that tritpack can make: it cannot be converted as it is (see the problem)."]
    names = {verdict: _engines(result["engines"], verdict) for verdict in ("right", "wrong", "unknown")}
    as_it_is = [VERDICTS[verdict].format(names[verdict]) for verdict in names if names[verdict]]
    return [
        *as_it_is,
        "tritpack and others run a file that is made of it: tritpack convert FOLDER -o OUT.gguf --for ENGINE.",
    ]


def _needs(result: Result) -> list[str]:
    if result["needs"] is None:
        return [f"Disk: {size(result['nbytes'])}.", _no_needs(result)]
    here = [f"Disk: {size(result['nbytes'])} as it is here."] if result["kind"] == "checkpoint" else []
    return [*here, *needs_sentences(result["needs"])]


def _no_needs(result: Result) -> str:
    if result["model"] or result.get("part"):
        return "Memory and speed are not estimated: this is not a whole model."
    if result["kind"] == "gguf":
        return "Memory and speed are not estimated: tritpack does not know this architecture, or a key is missing."
    return "Memory and speed are not estimated: tritpack cannot convert it."


def _origin(result: Result) -> list[str]:
    origin, sentences = result["origin"], []
    if place := result.get("place"):
        commit = f" at commit {place['commit'][:SHOWN]}" if place["commit"] else ""
        sentences.append(f"The file is {_cut(place['url'])}{commit}.")
    if origin["repository"] or origin["url"]:
        commit = f" at commit {origin['commit'][:SHOWN]}" if origin["commit"] else ", no revision named"
        said = "its path says so" if result["kind"] == "checkpoint" else "the file says so, which proves nothing"
        sentences.append(f"{_cut(origin['repository'] or origin['url'])}{commit} ({said}).")
    else:
        sentences.append(_maker(result["metadata"]) or _silent(result))
    if known := result.get("known"):
        sentences.append(_known(known))
    if result["kind"] == "gguf" and not place:
        beside = origin["attestation"]
        proof = f"The attestation {beside} in the same folder says what was proved; tritpack check compares the two."
        sentences.append(proof if beside else "There is no attestation (the proof of a conversion) in the same folder.")
    return sentences


def _maker(metadata: Mapping[str, Any]) -> str | None:
    """What tritpack records of a source whose repository it did not know; None if it made no such record."""
    version, form, family, sha256 = (metadata.get(key) for key in MADE_FROM)
    if not all(isinstance(value, str) for value in (version, form, family)):
        return None
    digits = f"; SHA-256 of its files {sha256[:SHOWN]}..." if isinstance(sha256, str) else ""
    return (
        f"The file says that tritpack {_cut(version)} made it from a checkpoint of the family {_cut(family)} (storage: "
        f"{_cut(form)}{digits}). Which repository that was is not recorded."
    )


def _silent(result: Result) -> str:
    what = "folder" if result["kind"] == "checkpoint" else "file"
    return f"The {what} itself does not say." if is_known(result["origin"]) else f"Not known: the {what} does not say."


def _known(known: Mapping[str, Any]) -> str:
    name = known["name"]
    if known["differs"]:
        return f"It has the size of {name}, and other bytes."
    sentence = {
        "sha256": f"It is {name}: the SHA-256 is equal",
        "header": f"It looks like {name}: size and header are equal",
        "size": f"It has the size of {name} (--stats compares the SHA-256)",
    }[known["by"]]
    return f"{sentence}; {known['note']}." if known["note"] else f"{sentence}."
