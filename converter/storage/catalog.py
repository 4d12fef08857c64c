"""All storages, and which one a checkpoint has."""

from __future__ import annotations

from tritpack.converter.storage.master_weights import MasterWeights, PlainFloats
from tritpack.converter.storage.mlx import Mlx
from tritpack.converter.storage.pack_quantized import PackQuantized
from tritpack.converter.storage.packed import Packed
from tritpack.converter.storage.storage import Declaration, Storage
from tritpack.converter.storage.ternary_floats import TernaryFloats
from tritpack.formats.errors import Unsupported

STORAGES: dict[str, type[Storage]] = {
    storage.key: storage for storage in (Packed, MasterWeights, PlainFloats, TernaryFloats, Mlx, PackQuantized)
}
"""By key in the families' YAML files, in the order in which they are asked; the first that recognises itself counts."""

POINTERS = {
    "humming": "its codes are those of compressed-tensors under other names; HummingConverter, in newer versions of "
    "that package, writes a checkpoint that is read here if the codes are ternary",
    "edgerazor": "config.json does not say is_w_quantized: true, so EdgeRazor's loaders round these weights when they "
    "load them; python -m edgerazor.convert writes a checkpoint of rounded ones, which is read here if all are ternary",
}
"""By quant_method of other tools: what a user can do instead."""


def recognise_storage(declared: Declaration) -> tuple[Storage, str]:
    """Return the storage of a checkpoint's linears, and the evidence in words.

    Raises Unsupported for quantisations that are not read, and for --quantize where nothing is to be quantised.
    """
    _refuse_quantize(declared)
    for storage in STORAGES.values():
        if recognised := storage.recognise(declared):
            return recognised
    method = (declared.quantization or {}).get("quant_method")
    raise Unsupported(
        f"quantization_config.quant_method {method!r} is not a ternary format that is read here",
        hint=POINTERS.get(str(method), "supported: bitnet, compressed-tensors"),
    )


def _refuse_quantize(declared: Declaration) -> None:
    if declared.quantize is None:
        return
    if declared.quantization is not None:
        because = "its config.json has a quantization_config"
    elif declared.floats == MasterWeights.name:
        because = "its master weights are quantised by absmean anyway"
    else:
        return
    raise Unsupported(
        f"--quantize {declared.quantize} is for plain float checkpoints, and this is not one: {because}",
        hint="leave --quantize out: the codes and scales of this checkpoint are kept as they are",
    )
