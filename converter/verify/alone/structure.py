"""Whether metadata, tensor table and recorded hashes describe one model that can be run."""

from __future__ import annotations

from tritpack.converter.sources.hybrid_gguf import generation_doubt
from tritpack.converter.verify.alone.context import AloneContext
from tritpack.converter.verify.compare.foreign import is_silent_on_activations, layout_not_run
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.converter.verify.rungs.structure import check_metadata, check_record, check_tensors
from tritpack.formats.errors import TritpackError
from tritpack.formats.model_metadata import foreign_architecture
from tritpack.formats.model_spec import ACTIVATION_QUANTIZATION

name = "structure"
blames: Blame = "file"
needs: frozenset[Need] = frozenset()


def run(context: AloneContext) -> Rung:
    """Check that the file describes a model, and has its tensors. A file that fails here is not run; nor is one of an
    architecture or in a layout that tritpack does not run, which does not make the file wrong."""
    file = context.file
    rung = Rung(name, blames, compares="metadata and tensor table of FILE with the model that it describes")
    if (architecture := foreign_architecture(file)) is not None:
        context.report.unsupported = f"tritpack cannot run architecture {architecture!r}"
        rung.skipped = context.cannot_run = context.report.unsupported
        return rung
    try:
        spec = context.spec
    except TritpackError as error:
        rung.add(Kind.METADATA_INVALID, f"metadata: {error.without_path}", tensor=error.tensor)
        context.cannot_run = "the file's metadata do not describe a model"
        return rung
    check_metadata(rung, file, spec, spec_differs=False, owner="the model that it describes")
    check_tensors(rung, file, spec, lambda table: True)
    check_record(rung, file, spec)
    key = f"{file.metadata.get('general.architecture')}.hidden_activation"
    if spec.architecture.startswith("bitnet") and key not in file.metadata:
        rung.notes.append(f"{key} is missing: taken to be {spec.activation}, and other readers may guess otherwise")
    if (doubt := generation_doubt(file, spec)) is not None:
        rung.notes.append(doubt)
    if is_silent_on_activations(file):
        how = next(name for name, int8 in ACTIVATION_QUANTIZATION.items() if int8 == spec.int8_activations)
        rung.notes.append(f"no key of the file says how activations are quantised: taken to be {how}")
    if rung.findings:
        context.cannot_run = "the file's structure is wrong"
    elif (reason := layout_not_run(file)) is not None:
        context.report.unsupported = context.cannot_run = reason
    rung.figures |= {"tensors": len(file.tensors), "architecture": spec.architecture}
    return rung
