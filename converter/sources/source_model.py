"""What a source gives to a plan: its spec, where each tensor comes from, and the metadata to carry on. One function a
kind of source; the plan does not know which it was."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter import vocab
from tritpack.converter.families.hyperparameters import text_config
from tritpack.converter.families.recognition import Recognition, recognise, refuse_by_name
from tritpack.converter.sources import ternarize
from tritpack.converter.sources.checkpoint import FLOATS, CheckpointFolder
from tritpack.converter.sources.source_tensors import (
    CheckpointTensor,
    Computed,
    GgufTensor,
    Origin,
    check_floats,
    check_linear,
)
from tritpack.formats import model_metadata
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.files import sha256_file
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import LINEARS, ROPE_FACTORS, TABLES, ModelSpec

PARTS = ("weight_scale", "scales", "biases")
GRAPH_PARTS = re.compile(r"(\.bias|(norm\w*|_ln)\.\w+|_proj(\.\w+)+|sinks|gamma|lora_\w+(\.\w+)*|\.weight_scale)$")
"""How names end of tensors that would take part in the computation."""


@dataclasses.dataclass(frozen=True)
class Material:
    """What a source gives to a plan, whatever kind of source it is."""

    why: str
    spec: ModelSpec
    origins: dict[str, Origin]  # by GGUF name
    metadata: dict[str, Any]
    unused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    types: dict[str, str] = dataclasses.field(default_factory=dict)  # of metadata from a GGUF, where not the usual


# -- a checkpoint ------------------------------------------------------------------------------------------------------


def of_checkpoint(source: CheckpointFolder, quantize: str | None, name: str | None, hashed: bool) -> Material:
    """See make_plan for the arguments."""
    known = recognise(source.config, source.dtypes, quantize=quantize, pooling=source.pooling(), notes=source.notes)
    known = _with_own_head(source, known)
    origins: dict[str, Origin] = {}
    used: set[str] = set()
    for target, shape in known.spec.tensor_shapes().items():
        if target == ROPE_FACTORS:
            assert known.spec.rope_scaling is not None
            origins[target] = Computed(target, np.array(known.spec.rope_scaling.frequency_factors, np.float32))
            continue
        origin = _origin(source, known, target, shape)
        origins[target] = origin
        used |= {origin.stored.name, *(part.name for part in origin.parts.values())}
    if known.form == "absmean":
        _refuse_ternary_masters(origins, known)
    unused = tuple(sorted(set(source.tensors) - used))
    _refuse_unknown_norms(unused, known)
    hashes = source.file_hashes if hashed else dict.fromkeys(source.source_files, "0" * 64)
    vocabulary = vocab.read_vocabulary(source.folder, source.config, source.generation_config)
    metadata = {
        "general.name": name or _title(source, known),
        # Not the folder's path: the same checkpoint has to give the same bytes wherever it lies.
        "general.source.format": "safetensors",
        "general.source.sha256": source.sha256 if hashed else "0" * 64,
        "tritpack.source.files": [f"{digest}  {file}" for file, digest in hashes.items()],
        "tritpack.source.family": known.family.name,
        "tritpack.source.form": known.form,
        **_embedding_metadata(known, vocabulary),
        **vocabulary,
    }
    return Material(known.why, known.spec, origins, metadata, unused, _warnings(source, known, vocabulary))


def _warnings(source: CheckpointFolder, known: Recognition, vocabulary: dict[str, Any]) -> tuple[str, ...]:
    """What is right and should be known all the same."""
    warnings = []
    positions = text_config(source.config).get("max_position_embeddings")
    if isinstance(positions, int) and positions > known.spec.context_length:
        warnings.append(
            f"the context ends at {known.spec.context_length} of {positions} positions: beyond, longrope has other "
            "rotary factors, and what is cached cannot turn to them"
        )
    if vocabulary.get("tokenizer.ggml.model") == "gpt2" and vocabulary.get("tokenizer.ggml.pre") == "default":
        warnings.append(
            "no pre-tokenizer that llama.cpp knows by name cuts text as this one does: tritpack keeps its rule in the "
            "file, other engines will give other token ids"
        )
    return tuple(warnings)


def _origin(source: CheckpointFolder, known: Recognition, target: str, shape: tuple[int, ...]) -> CheckpointTensor:
    name = known.source_name(target)
    stored = source.tensors.get(name)
    if stored is None:
        hint = "config.json says that the head is not tied to the embedding" if target == "output.weight" else None
        raise Unreadable(f"{source.folder}: tensor {name!r} is missing", hint=hint)
    stem = name.removesuffix("weight")
    beside = {part: source.tensors[stem + part] for part in PARTS if stem + part in source.tensors}
    linear = target.removesuffix(".weight").rpartition(".")[2] in LINEARS
    form = known.form
    if "weight_scale" in beside and not known.scales_are_told:
        raise Unsupported(
            f"tensor {stem + 'weight_scale'!r} is there, but no quantization_config in config.json says whether it "
            "multiplies or divides, which cannot be guessed"
        )
    if form == "online" and linear and (stored.dtype == "U8" or "weight_scale" in beside):
        raise Unsupported(
            f"tensor {name!r} is packed or has a weight_scale, "
            "and quantization_mode online means float masters without one"
        )
    offset = 0.0
    if len(shape) == 1 and not target.endswith("_norm_in.weight"):
        offset = known.family.norm_offset
    table = target.removesuffix(".weight") in TABLES
    if table and form == "mlx" and stored.dtype in FLOATS:
        form = "exact"  # mlx-lm leaves some tables as they were
    tensor = CheckpointTensor(
        stored,
        shape,
        form,
        known.scale_multiplies,
        beside if linear or (table and form == "mlx") else {},
        known.spec.row_order(target),
        offset,
    )
    if linear or (table and form == "mlx"):
        check_linear(tensor)
    else:
        check_floats(stored, shape)
    return tensor


def _with_own_head(source: CheckpointFolder, known: Recognition) -> Recognition:
    """As transformers 5: a head that is there and differs from the embedding is not tied, whatever config.json says."""
    head, table = (source.tensors.get(known.source_name(f"{name}.weight")) for name in ("output", "token_embd"))
    if not known.spec.tied or known.spec.is_embedding_model or head is None or table is None:
        return known
    same = (head.dtype, head.shape) == (table.dtype, table.shape) and np.array_equal(head.data, table.data)
    return known if same else dataclasses.replace(known, spec=dataclasses.replace(known.spec, tied=False))


def _refuse_ternary_masters(origins: dict[str, Origin], known: Recognition) -> None:
    """absmean on weights that are ternary already would shrink their scale by the share of non-zeros."""
    origin = origins[known.spec.linear_names()[0]]
    assert isinstance(origin, CheckpointTensor)
    if ternarize.recover(origin.stored) is not None:
        raise Unsupported(
            f"tensor {origin.name!r} is ternary already, so --quantize absmean would spoil its scale",
            hint="leave --quantize out: the codes and scales are recovered exactly",
        )


def _refuse_unknown_norms(unused: tuple[str, ...], known: Recognition) -> None:
    """A norm, bias or projection that nobody asked for means that the graph is another one: the silent failure of other
    loaders. What else is unused (rotary_emb.inv_freq of old checkpoints) is reported."""
    head = known.source_name("output.weight").removesuffix("weight")
    for name in unused:
        if name.startswith((known.prefix, head)) and GRAPH_PARTS.search(name):
            raise Unsupported(
                f"tensor {name!r} has no place in {known.family.title}: without it the model would be another one",
                hint="tritpack families lists what is supported and how it is recognised",
            )


def _embedding_metadata(known: Recognition, vocabulary: dict[str, Any]) -> dict[str, Any]:
    """The token that an embedding model wants behind every text, whatever its tokenizer does by itself."""
    token = known.family.embedding.get("append")
    if token is None:
        return {}
    tokens = vocabulary["tokenizer.ggml.tokens"]
    ids = [i for i, text in enumerate(tokens) if text == token]
    last = ids[0] if ids else vocabulary.get("tokenizer.ggml.eos_token_id")
    return {} if last is None else {"tritpack.embedding.append_token_id": int(last)}


def _title(source: CheckpointFolder, known: Recognition) -> str:
    given = source.config.get("_name_or_path")
    return Path(given).name if isinstance(given, str) and Path(given).name else known.family.name


# -- a GGUF ------------------------------------------------------------------------------------------------------------


def of_gguf(file: GgufFile, hashed: bool) -> Material:
    """A packed file as a source: its tensors through their layouts, its keys read and written anew."""
    try:
        refuse_by_name({"model_type": file.metadata.get("general.architecture")}, file.tensors, " ".join(file.metadata))
        spec = model_metadata.from_gguf(file)
    except (Unreadable, Unsupported) as error:
        raise type(error)(f"{file.path}: {error.message}", hint=error.hint) from error
    if unknown := spec.unknown_tensors(file.tensors):
        raise Unsupported(
            f"{file.path}: tensor {unknown[0]!r} has no place in a {spec.architecture} model that is run here"
        )
    if spec.architecture == "bitnet-25":  # the name that the same graph had until April 2025
        spec = dataclasses.replace(spec, architecture="bitnet-b1.58")
    origins: dict[str, Origin] = {}
    for target, shape in spec.tensor_shapes().items():
        info = file.tensors.get(target)
        if info is None:
            raise Unreadable(f"{file.path}: tensor {target!r} is missing")
        if info.shape != shape:
            raise Unreadable(f"{file.path}: tensor {target!r} has shape {list(info.shape)}, expected {list(shape)}")
        origins[target] = GgufTensor(file, info)
    kept = ("general.", "tritpack.source.", "tritpack.embedding.", "tritpack.scale_rounding", "tritpack.repair.")
    recorded = {key: value for key, value in file.metadata.items() if key.startswith(kept)}
    if "general.source.sha256" not in recorded:
        digest = sha256_file(file.path) if hashed else "0" * 64
        recorded |= {"general.source.format": "gguf", "general.source.sha256": digest}
    lost = recorded.get("tritpack.scale_rounding", 0.0)
    if not isinstance(lost, float) or not 0 <= lost < float("inf"):
        raise Unreadable(f"{file.path}: metadata key tritpack.scale_rounding is {str(lost)[:40]!r}, expected a share")
    for key in ("general.architecture", "general.file_type", "general.alignment", "general.quantization_version"):
        recorded.pop(key, None)
    types = {key: file.metadata_types[key] for key in recorded if key in file.metadata_types}
    layouts = Counter(file.tensors[name].layout for name in spec.linear_names())
    why = (
        f"GGUF of architecture {file.metadata.get('general.architecture')} with "
        f"{', '.join(f'{count} x {layout}' for layout, count in layouts.items())}; "
        f"{'int8' if spec.int8_activations else 'float'} activations"
    )
    if "tokenizer.ggml.model" not in file.metadata:
        return Material(why, spec, origins, recorded, (), ("the source has no tokenizer",), types)
    try:
        vocabulary = vocab.vocabulary_of_gguf(file.metadata, spec.vocab_size)
    except (Unreadable, Unsupported) as error:
        raise type(error)(f"{file.path}: {error.message}", hint=error.hint) from error
    return Material(why, spec, origins, {**recorded, **vocabulary}, types=types)
