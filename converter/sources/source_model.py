"""What a source gives to a plan: its spec, where each tensor comes from, and the metadata to carry on.

There is one function per kind of source. The plan does not know which kind it was.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter import vocab
from tritpack.converter.families.hyperparameters import text_config
from tritpack.converter.families.recognition import Recognition, recognise, refuse_by_name
from tritpack.converter.sampling import sampling_metadata
from tritpack.converter.sources import hybrid
from tritpack.converter.sources.checkpoint import CheckpointFolder, checkpoint_hash
from tritpack.converter.sources.first_values import checkpoint_is_ternary, gguf_is_ternary, is_float_master
from tritpack.converter.sources.hadamard_pack import is_pack, plain_config, refuse_unmarked
from tritpack.converter.sources.hybrid_gguf import beyond_the_layers, doubts, left_out, left_out_words
from tritpack.converter.sources.origin import Origin, snapshot_of
from tritpack.converter.sources.source_tensors import (
    CheckpointTensor,
    ConstantTensor,
    GgufTensor,
    SourceTensor,
    check_floats,
)
from tritpack.converter.storage.master_weights import PlainFloats
from tritpack.converter.storage.storage import Storage
from tritpack.converter.vocab.pre_name import pre_name_warning
from tritpack.formats import model_metadata
from tritpack.formats.delta_net import GATES
from tritpack.formats.errors import Unreadable, Unsupported, locating
from tritpack.formats.files import hash_of_parts
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.hadamard import PREFIX
from tritpack.formats.model_spec import HYBRID, ROPE_FACTORS, TABLES, ModelSpec
from tritpack.formats.names import PLAIN_FLOATS
from tritpack.formats.safetensors_reader import FLOATS, StoredTensor

PARTS = ("weight_scale", "weight_shape", "scales", "biases")
GRAPH_PARTS = re.compile(r"(\.bias|(norm\w*|_ln)\.\w+|_proj(\.\w+)+|sinks|gamma|lora_\w+(\.\w+)*|\.weight_scale)$")
"""How the names end of tensors that would take part in the computation."""
KEPT_KEYS = ("general.", "tritpack.source.", "tritpack.embedding.", "tritpack.scale_rounding", "tritpack.repair.")
"""How keys of a GGUF begin that are carried on as they are."""
RENEWED_KEYS = ("general.architecture", "general.file_type", "general.alignment", "general.quantization_version")
"""Keys among these that the plan decides anew."""
NO_HASH = "0" * 64
"""In a plan, this stands for each hash of the weights: they are known when the weights have been read."""


@dataclasses.dataclass(frozen=True, repr=False)
class SourceModel:
    """What a source gives to a plan, whatever kind of source it is.

    why: what was recognised, in one line. tensors: by GGUF name. metadata: to carry on, by GGUF key. unused: names of
    tensors that nothing needs. types: GGUF types of metadata, where they are not the usual ones. left_out: parts of a
    bigger model that are no part of this one, and their numbers of tensors.
    """

    why: str
    spec: ModelSpec
    tensors: dict[str, SourceTensor]
    metadata: dict[str, Any]
    unused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    types: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"SourceModel({self.why!r}, {len(self.tensors)} tensors)"


# -- a checkpoint ------------------------------------------------------------------------------------------------------


def from_checkpoint(
    source: CheckpointFolder, quantize: str | None, name: str | None, origin: Origin | None = None
) -> SourceModel:
    """Recognise a checkpoint and locate its tensors.

    quantize: the argument of --quantize. name: general.name, if it is not to be the checkpoint's own. origin:
    repository and commit of a checkpoint whose folder does not tell them. Raises Unsupported or Unreadable, naming the
    tensor or the key of config.json.
    """
    with locating(path=source.folder):
        if not (pack := is_pack(source.config)):
            refuse_unmarked(source)
        recognition = recognise(
            plain_config(source.config) if pack else source.config,
            source.dtypes,
            quantize=quantize,
            pooling=source.pooling(),
            notes="" if pack else source.notes,
            is_ternary=lambda: checkpoint_is_ternary(source),
        )
        recognition = hybrid.completed(source, _with_untied_head(source, recognition))
        tensors = _checkpoint_tensors(source, recognition)
        _refuse_ternary_masters(tensors, recognition)
        left_out, unused = _unused(source, tensors, recognition)
        _refuse_unknown_norms(unused, recognition)
    notes: list[str] = []
    vocabulary = vocab.read_vocabulary(source.folder, source.config, source.generation_config, notes)
    metadata = {
        "general.name": name or source.origin.name or _title(source, recognition),
        **_origin(source, origin).metadata(),
        **_provenance({**source.document_hashes, **dict.fromkeys(source.weight_files, NO_HASH)}),
        "tritpack.source.family": recognition.family.name,
        "tritpack.source.form": recognition.storage.recorded,
        **_embedding_metadata(recognition, vocabulary),
        **sampling_metadata(source.generation_config, notes),
        **vocabulary,
    }
    warnings = (*left_out_words(left_out), *_checkpoint_warnings(source, recognition, vocabulary))
    warnings += (*source.origin.warnings, *notes)
    return SourceModel(recognition.why, recognition.spec, tensors, metadata, unused, warnings, left_out=left_out)


def _origin(source: CheckpointFolder, recorded: Origin | None) -> Origin:
    """Return where a checkpoint comes from. recorded: what is known of one whose folder does not tell."""
    if recorded is None or source.origin.repository is not None:
        return source.origin
    return dataclasses.replace(source.origin, repository=recorded.repository, commit=recorded.commit)


def _with_untied_head(source: CheckpointFolder, recognition: Recognition) -> Recognition:
    """Untie a head that is there and differs from the embedding, whatever config.json says: transformers 5 does so."""
    spec = recognition.spec
    head, table = (source.tensors.get(recognition.source_name(f"{name}.weight")) for name in ("output", "token_embd"))
    if not spec.tied or spec.is_embedding_model or head is None or table is None:
        return recognition
    if (head.dtype, head.shape) == (table.dtype, table.shape) and head.has_data_of(table):
        return recognition
    return dataclasses.replace(recognition, spec=dataclasses.replace(spec, tied=False))


def _checkpoint_tensors(source: CheckpointFolder, recognition: Recognition) -> dict[str, SourceTensor]:
    """Return where each tensor of the model comes from, after checking all headers."""
    tensors: dict[str, SourceTensor] = {}
    scaling, linears = recognition.spec.rope_scaling, frozenset(recognition.spec.linear_names())
    for target, shape in recognition.spec.tensor_shapes().items():
        if target == ROPE_FACTORS:
            assert scaling is not None
            tensors[target] = ConstantTensor(target, np.array(scaling.frequency_factors, np.float32))
        else:
            is_linear = target in linears
            tensors[target] = _checkpoint_tensor(source, recognition, target, shape, is_linear=is_linear)
    return tensors


def _checkpoint_tensor(
    source: CheckpointFolder, recognition: Recognition, target: str, shape: tuple[int, ...], *, is_linear: bool
) -> CheckpointTensor:
    name = recognition.source_name(target)
    stored = source.tensors.get(name)
    if stored is None:
        hint = "config.json says that the head is not tied to the embedding" if target == "output.weight" else None
        raise Unreadable("is missing", path=source.folder, tensor=name, hint=hint)
    parts = _parts_beside(source, name)
    if "weight_scale" in parts and not recognition.scales_are_declared:
        raise Unsupported(
            "is there, but no quantization_config in config.json says whether it multiplies or divides, which cannot "
            "be guessed",
            tensor=parts["weight_scale"].name,
        )
    part = target.removesuffix(".weight")
    kind = part.rpartition(".")[2]
    storage: Storage | None = recognition.storage if is_linear else None
    if part in TABLES or (is_linear and kind in GATES):
        storage = recognition.storage.for_table(stored)
    if kind == "ssm_conv1d":
        stored = hybrid.squeezed(stored, shape)
    as_linear = storage is not None and (is_linear or stored.dtype not in FLOATS)
    tensor = CheckpointTensor(
        stored,
        shape,
        storage,
        parts if as_linear else {},
        recognition.spec.row_order(target),
        recognition.spec.column_order(target),
        recognition.norm_offset(target),
        log=kind == "ssm_a",
    )
    if as_linear:
        assert storage is not None
        storage.check(tensor.linear)
    else:
        check_floats(stored, shape)
    return tensor


def _parts_beside(source: CheckpointFolder, name: str) -> dict[str, StoredTensor]:
    stem = name.removesuffix("_packed").removesuffix("weight")
    return {part: source.tensors[stem + part] for part in PARTS if stem + part in source.tensors}


def _refuse_ternary_masters(tensors: Mapping[str, SourceTensor], recognition: Recognition) -> None:
    """Raise Unsupported if --quantize absmean was given for floats that are ternary already."""
    if isinstance(recognition.storage, PlainFloats):
        first = tensors[recognition.spec.linear_names()[0]]
        assert isinstance(first, CheckpointTensor)
        recognition.storage.refuse_ternary(first.linear)


def _unused(
    source: CheckpointFolder, tensors: Mapping[str, SourceTensor], recognition: Recognition
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return how many tensors of each part of a bigger model are left out, and the names of other unused tensors."""
    used = {
        name
        for tensor in tensors.values()
        if isinstance(tensor, CheckpointTensor)
        for name in (tensor.name, *(part.name for part in tensor.parts.values()))
    }
    if rotation := recognition.spec.rotation:  # the signs beside a matrix were compared with the contract
        used |= {
            f"{tensor.name.removesuffix('weight')}signs" for name, tensor in tensors.items() if rotation.turns(name)
        }
    unused = sorted(set(source.tensors) - used)
    kinds = {name: recognition.family.kind_left_out(name) for name in unused}
    counts = Counter(kind for kind in kinds.values() if kind)
    return dict(counts), tuple(n for n in unused if not kinds[n])


def _refuse_unknown_norms(unused: tuple[str, ...], recognition: Recognition) -> None:
    """Raise Unsupported for a norm, bias or projection that nothing asked for: with it, the graph is another one.

    Other loaders drop such tensors in silence. Other unused ones (rotary_emb.inv_freq of old checkpoints) are reported.
    """
    head = recognition.source_name("output.weight").removesuffix("weight")
    for name in unused:
        if name.startswith((recognition.prefix, head)) and GRAPH_PARTS.search(name):
            raise Unsupported(
                f"has no place in {recognition.family.title}: without it the model would be another one",
                tensor=name,
                hint="tritpack families lists what is supported and how it is recognised",
            )


def _provenance(hashes: Mapping[str, str]) -> dict[str, Any]:
    lines = [f"{digest}  {file}" for file, digest in sorted(hashes.items())]
    return {
        # Not the folder's path: the same checkpoint has to give the same bytes wherever it lies.
        "general.source.format": "safetensors",
        "general.source.sha256": NO_HASH if NO_HASH in hashes.values() else checkpoint_hash(hashes),
        "tritpack.source.files": lines,
    }


def with_hashes(
    metadata: Mapping[str, Any], source: CheckpointFolder | GgufFile, hashes: Mapping[str, str]
) -> dict[str, Any]:
    """Return the metadata of a plan with the hashes of the weights in their places. hashes: by file name."""
    if metadata["general.source.sha256"] != NO_HASH:  # the source was packed from something, which its file records
        return dict(metadata)
    if isinstance(source, GgufFile):
        return {**metadata, "general.source.sha256": hash_of_parts([hashes[path.name] for path in source.files])}
    return {**metadata, **_provenance({**source.document_hashes, **hashes})}


def _embedding_metadata(recognition: Recognition, vocabulary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the key for the token that an embedding model wants after every text, whatever its tokenizer adds."""
    token = recognition.family.embedding.get("append")
    if token is None:
        return {}
    tokens = vocabulary["tokenizer.ggml.tokens"]
    ids = [i for i, text in enumerate(tokens) if text == token]
    last = ids[0] if ids else vocabulary.get("tokenizer.ggml.eos_token_id")
    return {} if last is None else {"tritpack.embedding.append_token_id": int(last)}


def _title(source: CheckpointFolder, recognition: Recognition) -> str:
    path = source.config.get("_name_or_path")
    return Path(path).name if isinstance(path, str) and Path(path).name else recognition.family.name


def _checkpoint_warnings(
    source: CheckpointFolder, recognition: Recognition, vocabulary: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return what is right and should be known nevertheless."""
    warnings = []
    positions = text_config(source.config).get("max_position_embeddings")
    context = recognition.spec.context_length
    if isinstance(positions, int) and positions > context:
        warnings.append(
            f"the context ends at {context} of {positions} positions: after that, longrope has other rotary factors, "
            "and what is cached cannot be turned to them"
        )
    if source.adapter_files:
        adapter = f"the LoRA adapter beside the model ({source.adapter_files[0]})"
        warnings.append(f"{adapter} is not part of the output: merge it into the model first")
    if recognition.rounds_activations:
        warnings.append(
            "EdgeRazor's loaders round activations to int8 in blocks (activation_bits 8); here they stay floats"
        )
    if (warning := pre_name_warning(vocabulary)) is not None:
        warnings.append(warning)
    return tuple(warnings)


# -- a GGUF ------------------------------------------------------------------------------------------------------------


def from_gguf(file: GgufFile, origin: Origin | None = None) -> SourceModel:
    """Take a packed file as a source: its tensors through their layouts, its keys read and written anew.

    origin: repository and commit of a file that is a source itself and whose folder does not tell them.
    Raises Unsupported or Unreadable with the file and the tensor or key.
    """
    with locating(path=file.path):
        architecture = file.metadata.get("general.architecture")
        kind = {"model_type": architecture} if isinstance(architecture, str) else {}
        read = PREFIX if kind == {"model_type": HYBRID} else None  # keys that model_metadata checks
        keys = " ".join(key for key in file.metadata if read is None or not key.startswith(read))
        refuse_by_name(kind, file.tensors, keys, lambda: gguf_is_ternary(file))
        if not is_float_master(file):
            model_metadata.require_ternary(file)
        spec = model_metadata.from_gguf(file)
        tensors = _gguf_tensors(file, spec, beyond_the_layers(file, spec))
        recorded = _recorded(file, origin)
    types = {key: file.metadata_types[key] for key in recorded if key in file.metadata_types}
    layouts = Counter(file.tensors[name].layout for name in spec.linear_names())
    warnings = [*left_out_words(left_out(file, spec)), *doubts(file, spec)]
    why = (
        f"GGUF of architecture {architecture} with "
        f"{', '.join(f'{count} x {layout}' for layout, count in layouts.items())}; "
        f"{'int8' if spec.int8_activations else 'float'} activations"
        f"{f'; in a rotated basis ({spec.rotation})' if spec.rotation else ''}"
    )
    if spec.architecture == "bitnet-25":  # the name that the same graph had until April 2025
        spec = dataclasses.replace(spec, architecture="bitnet-b1.58")
    if "tokenizer.ggml.model" not in file.metadata:
        return SourceModel(why, spec, tensors, recorded, (), (*warnings, "the source has no tokenizer"), types)
    with locating(path=file.path):
        vocabulary = vocab.vocabulary_from_gguf(file.metadata, spec.vocab_size)
    return SourceModel(why, spec, tensors, {**recorded, **vocabulary}, (), tuple(warnings), types)


def _gguf_tensors(file: GgufFile, spec: ModelSpec, left_out: Collection[str]) -> dict[str, SourceTensor]:
    if unknown := spec.unknown_tensors(set(file.tensors) - set(left_out)):
        raise Unsupported(f"has no place in a {spec.architecture} model that is run here", tensor=unknown[0])
    tensors: dict[str, SourceTensor] = {}
    is_master = is_float_master(file)
    may_be_ternary = {*spec.linear_names(), *(f"{table}.weight" for table in TABLES)}
    for target, shape in spec.tensor_shapes().items():
        info = file.tensors.get(target)
        if info is None:
            raise Unreadable("is missing", tensor=target)
        if info.shape != shape:
            raise Unreadable(f"has shape {list(info.shape)}, expected {list(shape)}", tensor=target)
        may_be_codes = is_master and target in may_be_ternary and info.layout in PLAIN_FLOATS
        tensors[target] = GgufTensor(file, info, may_be_codes=may_be_codes)
    return tensors


def origin_of_gguf(file: GgufFile, origin: Origin | None) -> dict[str, Any]:
    """Return the metadata that say where a file comes from, if it does not record that it was made from another.

    origin: as for from_gguf.
    """
    if "general.source.sha256" in file.metadata:
        return {}
    downloaded = Origin(*snapshot_of(file.path))
    origin = downloaded if origin is None or downloaded.repository else origin
    return {"general.source.format": "gguf", "general.source.sha256": NO_HASH, **origin.metadata()}


def _recorded(file: GgufFile, origin: Origin | None) -> dict[str, Any]:
    """Return the metadata to carry on: what describes the source and what earlier steps have done to it."""
    recorded = {
        key: value for key, value in file.metadata.items() if key.startswith(KEPT_KEYS) and key not in RENEWED_KEYS
    }
    recorded |= origin_of_gguf(file, origin)
    if not isinstance(name := recorded.get("general.name", ""), str):
        raise Unreadable(f"metadata key general.name is {str(name)[:40]!r}, expected a text")
    lost = recorded.get("tritpack.scale_rounding", 0.0)
    if not isinstance(lost, float) or not 0 <= lost < float("inf"):
        raise Unreadable(f"metadata key tritpack.scale_rounding is {str(lost)[:40]!r}, expected a share")
    return recorded
