"""What is wrong with a GGUF file as a whole, one sentence each."""

from __future__ import annotations

from tritpack.formats import model_metadata
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.hadamard import PREFIX, rotation_of_file
from tritpack.formats.model_spec import ModelSpec

MEND = "; tritpack metadata fix FILE adds the key, or says what it needs for that"


def missing_tensors(file: GgufFile, spec: ModelSpec | None) -> list[str]:
    """Return one sentence for all tensors that the model needs and a whole file does not have."""
    if spec is None or file.part is not None:
        return []
    missing = [name for name in spec.tensor_shapes() if name not in file.tensors]
    if not missing:
        return []
    named = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
    what = "1 tensor is missing" if len(missing) == 1 else f"{len(missing)} tensors are missing"
    return [f"{what}: {named}"]


def rotation_damage(file: GgufFile) -> list[str]:
    """Return in what the keys of a rotated basis contradict themselves or the tensors: no engine can run that right."""
    try:
        rotation_of_file(file)
    except Unreadable as error:
        return [error.without_path]
    except TritpackError:  # of another kind, which some engine may know
        pass
    return []


def rotation_problems(file: GgufFile) -> list[str]:
    """Return what is wrong with the keys of a rotated basis, and which ternary matrices they leave out."""
    if file.part is not None:
        return []
    try:
        rotation = rotation_of_file(file)
    except TritpackError as error:
        return [error.without_path]
    ternary = [info.name for info in file.tensors.values() if file.layout_of(info) is not None]
    if rotation is None or not (unnamed := rotation.unnamed(ternary)):
        return []
    others = f" and {len(unnamed) - 1} more" if len(unnamed) > 1 else ""
    return [f"{unnamed[0]!r}{others} is ternary, but the keys {PREFIX}* do not name it, so it counts as not rotated"]


def file_problems(file: GgufFile) -> list[str]:
    """Return what in the metadata would make some engine produce nonsense from this file."""
    if (part := file.part) is not None:  # what it lacks may be in another part
        of = "" if part.tensors is None else f" of {part.tensors}"
        return [f"{part}; it holds {len(file.tensors)}{of} tensors"]
    problems = []
    arch = file.metadata.get("general.architecture", "")
    try:
        model_metadata.from_gguf(file)
    except TritpackError as error:
        problems.append(error.without_path)
    if str(arch).startswith("bitnet") and f"{arch}.hidden_activation" not in file.metadata:
        problems.append(f"{arch}.hidden_activation is missing: readers have to guess the activation function{MEND}")
    if "tokenizer.ggml.model" in file.metadata:
        if file.metadata.get("tokenizer.ggml.model") == "gpt2" and "tokenizer.ggml.pre" not in file.metadata:
            problems.append(f"tokenizer.ggml.pre is missing: readers fall back to a wrong pre-tokenizer{MEND}")
        if "tokenizer.ggml.eos_token_id" not in file.metadata:
            problems.append("tokenizer.ggml.eos_token_id is missing: generation may never stop")
    else:
        problems.append("the file has no tokenizer")
    claimed = file.metadata.get("general.file_type")
    file_types = {t.meaning.file_type for t in file.tensors.values() if t.meaning and t.meaning.file_type is not None}
    if isinstance(claimed, int) and file_types and claimed not in file_types:
        problems.append(f"general.file_type is {claimed}, but the tensors are those of {sorted(file_types)}")
    return problems
