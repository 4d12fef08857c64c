"""The faults of metadata: one function each, which looks, repairs the draft, and says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tritpack.converter.metadata.consequences import ARCHITECTURE, with_metadata
from tritpack.converter.metadata.draft import Draft
from tritpack.converter.metadata.finding import FIXED, KNOWN_SHAPES, LEFT, UNPROVED, Finding, Knowledge
from tritpack.formats import model_metadata
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_header import TYPE_NAMES
from tritpack.formats.gguf_writer import NUMPY_TYPE_IDS
from tritpack.formats.hadamard import PREFIX, RECORD_KEY, rotation_of_file
from tritpack.formats.layouts import catalog
from tritpack.runtime.named_splits import ALIASES
from tritpack.runtime.tokenizer import BITNET_STUB, BITNET_TEMPLATE, KEY_PIPELINE, SPECIAL_KEYS

PRE, MODEL, TOKENS = "tokenizer.ggml.pre", "tokenizer.ggml.model", "tokenizer.ggml.tokens"
TEMPLATE, EOS, EOT = "tokenizer.chat_template", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"
FILE_TYPE, BLOCKS = "general.file_type", "block_count"
SOURCE_HINT = "--source names the checkpoint that the file was made of"
Fault = Callable[[Draft, Knowledge], Iterator[Finding]]


def architecture(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """One that is missing, or after which no key is named; and `bitnet-25`, the name that bitnet-b1.58 had until April
    2025: the graph is the same."""
    present = draft.metadata.get(ARCHITECTURE)
    if f"{present}.{BLOCKS}" not in draft.metadata:
        fault = f"{ARCHITECTURE} is missing" if present is None else f"no key belongs to the architecture {present!r}"
        names = [key.removesuffix(f".{BLOCKS}") for key in draft.metadata if key.endswith(f".{BLOCKS}")]
        if len(names) != 1:
            hint = f"tritpack metadata set FILE {ARCHITECTURE} NAME gives it; or convert or download the file again"
            yield Finding(LEFT, fault, "the names of the keys do not say which one is right", hint)
            return
        draft.set(ARCHITECTURE, "str", names[0])
        yield Finding(FIXED, fault, f"set to {names[0]!r}: the keys of the model are named after it")
    old, new = "bitnet-25", "bitnet-b1.58"
    if knowledge.architecture != old:
        return
    renamed = {key: new + key[len(old) :] for key in draft.metadata if key.startswith(f"{old}.")}
    if (twice := next((key for key, name in renamed.items() if _differ(draft, key, name)), None)) is not None:
        fault = f"{twice} and {renamed[twice]} say different things"
        hint = "tritpack metadata rm FILE KEY takes the wrong one out"
        yield Finding(LEFT, fault, f"nothing says which one is right, and {old} is not renamed to {new}", hint)
        return
    draft.rename(renamed)
    draft.set(ARCHITECTURE, "str", new)
    yield Finding(FIXED, f"the architecture is called {old}, its name until April 2025", f"renamed to {new}")


def _differ(draft: Draft, key: str, other: str) -> bool:
    """Whether both keys are there with values that differ."""
    present = draft.metadata
    return other in present and not np.array_equal(np.asarray(present[key]), np.asarray(present[other]))


def tokenizer(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """The whole tokenizer, which a source has."""
    if MODEL in draft.metadata and TOKENS in draft.metadata:
        return
    fault = "the file has no tokenizer"
    if not knowledge.has_source:
        yield Finding(LEFT, fault, "nothing in it says which one it is", SOURCE_HINT)
        return
    source = knowledge.source
    keys = {k: v for k, v in source.metadata.items() if k.startswith(("tokenizer.", "tritpack.tokenizer."))}
    if not keys:
        yield Finding(LEFT, fault, "the source has none either", SOURCE_HINT)
        return
    for key, value in keys.items():
        draft.set(key, source.types.get(key) or _type_of(value), value)
    yield Finding(FIXED, fault, f"set to that of the source, {len(keys)} keys")


def pre_tokenizer(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """`tokenizer.ggml.pre` of a byte-level tokenizer: without it, engines cut text otherwise than the model learnt."""
    if draft.metadata.get(MODEL) != "gpt2" or TOKENS not in draft.metadata:
        return
    present = draft.metadata.get(PRE)
    if present is not None and not knowledge.has_source:
        return
    fault = f"{PRE} is missing" if present is None else f"{PRE} is {present!r}"
    name, why = _pre_of(draft, knowledge)
    if name is None:
        yield Finding(LEFT, fault, why, SOURCE_HINT)
    elif present is None or (name != "default" and ALIASES.get(name, name) != ALIASES.get(present, present)):
        draft.set(PRE, "str", name)
        yield Finding(FIXED, fault, f"set to {name!r}: {why}")


def _pre_of(draft: Draft, knowledge: Knowledge) -> tuple[str | None, str]:
    """The name of the pre-tokenizer or None, and how that is known or why not."""
    if knowledge.has_source:
        name = knowledge.source.metadata.get(PRE)
        return name, "the source says so" if name else "the source has no tokenizer either"
    if KEY_PIPELINE in draft.metadata:
        from tritpack.converter.vocab.pre_name import pre_name
        from tritpack.runtime.tokenizer import Tokenizer

        try:
            backend = Tokenizer.from_metadata(draft.metadata, draft.file.path).backend
            return pre_name(backend, backend.document()), f"the rule in {KEY_PIPELINE} cuts text so"
        except TritpackError as error:
            return None, f"the tokenizer in the file cannot be used: {error.without_path}"
    if knowledge.is_llama3_vocabulary:
        return "llama-bpe", "the vocabulary is that of Llama 3"
    return None, "tokens and merges alone do not say how text is cut"


def activation(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """`<arch>.hidden_activation` of a BitNet model: without it, some engines take SiLU for squared ReLU."""
    if not knowledge.is_bitnet and knowledge.activation is None:
        return
    key = f"{knowledge.architecture}.hidden_activation"
    present = draft.metadata.get(key)
    name, why = _activation_of(knowledge)
    if present is not None and (name is None or name == present or not (knowledge.activation or knowledge.has_source)):
        return
    fault = f"{key} is missing" if present is None else f"{key} is {present!r}"
    if name is None:
        yield Finding(LEFT, fault, why, f"{SOURCE_HINT}; --activation gives the function: relu2 or silu")
        return
    if present is not None and not knowledge.activation:  # weights fit both functions: no source is surer than the file
        hint = "tritpack verify compares two files; --activation gives the function: relu2 or silu"
        yield Finding(LEFT, fault, f"that of the source is {name!r}, and nothing says which one is right", hint)
        return
    draft.set(key, "str", name)
    yield Finding(FIXED, fault, f"set to {name!r}: {why}")


def _activation_of(knowledge: Knowledge) -> tuple[str | None, str]:
    """The activation or None, and how that is known or why not."""
    if knowledge.activation is not None:
        return knowledge.activation, "--activation says so"
    if knowledge.has_source:
        return knowledge.source.spec.activation, "the source says so"
    if knowledge.shape in KNOWN_SHAPES:
        name, repository = KNOWN_SHAPES[knowledge.shape]
        return name, f"the model has the shape of {repository}, whose config.json says so"
    if knowledge.architecture == "bitnet-b1.58" and knowledge.is_llama3_vocabulary:
        return "relu2", "only BitNet b1.58 2B-4T and its descendants have this architecture and Llama 3's vocabulary"
    return None, f"models of both functions were called {knowledge.architecture}, and their tensors look the same"


def file_type(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """`general.file_type`: the number of what most ternary weights are, where an engine has a number for it."""
    weights: Counter[int] = Counter()
    names: dict[int, str] = {}
    for tensor in draft.file.tensors.values():
        if draft.file.layout_of(tensor) is not None and tensor.meaning is not None:
            number = catalog.type_of(tensor.layout).file_type
            if number is None:
                return
            weights[number] += tensor.rows * tensor.cols
            names[number] = tensor.layout
    present = draft.metadata.get(FILE_TYPE)
    if not weights or (isinstance(present, int) and present in weights):
        return
    right = weights.most_common(1)[0][0]
    draft.set(FILE_TYPE, "u32", np.uint32(right))
    fault = f"{FILE_TYPE} is missing" if present is None else f"{FILE_TYPE} is {present!r}"
    yield Finding(FIXED, fault, f"set to {right}: the ternary tensors are {names[right]}")


def chat_template(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """The stub that bitnet.cpp replaces by a format of its own; and a template that is missing and the source has."""
    if TOKENS not in draft.metadata:
        return
    present = draft.metadata.get(TEMPLATE)
    is_stub = isinstance(present, str) and BITNET_STUB in present
    right, why = None, "nothing in the file says which one is right"
    if knowledge.has_source:
        right, why = knowledge.source.metadata.get(TEMPLATE), "set to that of the source"
    elif knowledge.is_bitnet and knowledge.is_llama3_vocabulary:
        right, why = BITNET_TEMPLATE, "set to that of microsoft/bitnet-b1.58-2B-4T"
    if is_stub and not right:
        yield Finding(LEFT, f"{TEMPLATE} is a stub", why, SOURCE_HINT)
    elif is_stub or (present is None and right and knowledge.has_source):
        draft.set(TEMPLATE, "str", right)
        yield Finding(FIXED, f"{TEMPLATE} is {'a stub' if is_stub else 'missing'}", why)


def end_tokens(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """The tokens that end a text and a turn: without them, an answer may never end."""
    if TOKENS not in draft.metadata:
        return
    if EOS not in draft.metadata:
        value = knowledge.source.metadata.get(EOS) if knowledge.has_source else None
        if value is None or value < 0:
            yield Finding(LEFT, f"{EOS} is missing", "nothing in the file says which token ends a text", SOURCE_HINT)
        else:
            draft.set(EOS, "u32", np.uint32(value))
            yield Finding(FIXED, f"{EOS} is missing", f"set to {value}: the source says so")
    turn = _end_of_turn(draft)
    if EOT not in draft.metadata and turn is not None and turn not in (draft.metadata.get(EOS), -1):
        draft.set(EOT, "u32", np.uint32(turn))
        yield Finding(FIXED, f"{EOT} is missing", f"set to {turn}: the chat template ends turns with it")


def _end_of_turn(draft: Draft) -> int | None:
    """The control token after an answer in the chat template, as the template writes it."""
    from tritpack.converter.vocab.chat import end_of_turn

    template, kinds = draft.metadata.get(TEMPLATE), draft.metadata.get("tokenizer.ggml.token_type")
    if not isinstance(template, str) or not isinstance(kinds, np.ndarray):
        return None
    tokens = draft.metadata[TOKENS]
    added = {tokens[int(i)]: int(i) for i in np.flatnonzero((kinds == 3) | (kinds == 4)) if i < len(tokens)}
    ids = {name: draft.metadata.get(key) for name, key in SPECIAL_KEYS.items()}
    special = {name: tokens[i] for name, i in ids.items() if isinstance(i, int) and 0 <= i < len(tokens)}
    return end_of_turn(template, added, special)


def type_ids(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """Type ids that the engine of a layout has given up, most of them because llama.cpp gave them to another type."""
    retired: dict[tuple[str, int], list[Any]] = {}
    for tensor in draft.file.tensors.values():
        if draft.file.layout_of(tensor) is not None:
            retired.setdefault((tensor.layout, tensor.type_id), []).append(tensor)
    for (layout, old), tensors in retired.items():
        new = catalog.type_of(layout).type_id
        if new == old:
            continue
        for tensor in tensors:
            draft.retype(tensor, new)
        dialect = tensors[0].meaning.dialect
        yield Finding(FIXED, f"{len(tensors)} {layout} tensors have the type id {old} of {dialect}", f"set to {new}")


def rotation(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """The keys of a rotated basis: gone, contradictory, or not those of the source."""
    file = with_metadata(draft)
    try:
        present, fault = rotation_of_file(file), f"the keys {PREFIX}* are not those of the source"
    except TritpackError as error:
        present, fault = None, error.without_path
        if not knowledge.has_source:
            yield Finding(LEFT, fault, "nothing else in the file says what they were", SOURCE_HINT)
    if not knowledge.has_source or (right := knowledge.source.spec.rotation) is None or right == present:
        return
    if not any(key.startswith(PREFIX) for key in draft.metadata):
        fault = f"the keys {PREFIX}* are missing, and the source has them"
    for key in [key for key in draft.metadata if key.startswith(PREFIX)]:
        draft.remove(key)
    for key, value in {**right.to_metadata(draft.file.tensors), RECORD_KEY: True}.items():
        draft.set(key, _type_of(value), value)
    yield Finding(FIXED, fault, f"set to those of the source: {right}")


def model(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """What is wrong with the keys of the model after all repairs, so that nothing can run it."""
    file = with_metadata(draft)
    if (name := model_metadata.foreign_architecture(file)) is not None:
        fault = f"tritpack does not know the architecture {name!r}"
        yield Finding(UNPROVED, fault, "whether its keys are right was not checked")
        return
    if any(finding.fix in ("architecture", "rotation") and finding.status == LEFT for finding in knowledge.findings):
        return
    try:
        model_metadata.from_gguf(file)
    except TritpackError as error:
        sentence = f"the model cannot be run: {error.without_path}"
        hint = error.hint or "tritpack metadata set gives a key a value; or convert or download the file again"
        yield Finding(LEFT, sentence, "no rule gives the right value", hint)


def _type_of(value: Any) -> str:
    """The type that a writer gives to a value of a vocabulary or a rotation."""
    if isinstance(value, np.ndarray):
        return f"arr[{TYPE_NAMES[NUMPY_TYPE_IDS[value.dtype.str[1:]]]}]"
    kinds = {bool: "bool", int: "u32", float: "f32", str: "str"}
    return kinds.get(type(value), "arr[str]")


FAULTS: dict[str, Fault] = {
    "architecture": architecture,
    "tokenizer": tokenizer,
    "pre-tokenizer": pre_tokenizer,
    "activation": activation,
    "file type": file_type,
    "chat template": chat_template,
    "end tokens": end_tokens,
    "type ids": type_ids,
    "rotation": rotation,
    "model": model,
}
"""Every fault by the name that users see, in the order in which they are repaired: the first one renames keys."""
