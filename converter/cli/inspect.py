"""tritpack inspect."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, unpacked
from tritpack.converter.cli.human import size
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import json_option
from tritpack.formats.names import ExitCode


@click.command("inspect")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option(
    "--stats",
    is_flag=True,
    help="Decode every ternary tensor: scale, shares, entropy, hash of the codes; compare all recorded hashes.",
)
@json_option
def command(file: str, tensors: bool, stats: bool, as_json: bool) -> None:
    """Show what FILE (a GGUF, one in a bundle, a checkpoint folder, or a repository on the Hub) really contains.

    The sizes of tensors decide their layouts, because forks use the same type id for different layouts. Damage (tensors
    that are missing and, with --stats, codes or padding that no packer writes, and hashes of tensors that differ from
    those that the file records) ends with exit code 1, a part of a split file without the others with 3.
    """
    from tritpack.converter.inspect.inspect import inspect
    from tritpack.converter.sources.open import local_path

    with unpacked(file) as path:
        result = inspect(local_path(path, progress=True), stats=stats)
    result["file"] = file
    if isinstance(path, Path):  # nobody can open the files of a copy that is gone
        result["files"] = [Path(copy).name for copy in result["files"]]
    if as_json:
        print_json(result)
    else:
        _show(result, tensors, stats)
    part = result.get("part")
    if part and (part["missing"] or part["problem"]):
        sys.exit(ExitCode.UNREADABLE)
    if result["damage"]:
        sys.exit(ExitCode.CHECK_FAILED)


def _show(result: dict[str, Any], tensors: bool, stats: bool) -> None:
    nbytes = size(result["nbytes"])
    if result["kind"] == "gguf":
        version = f"GGUF v{result['gguf_version']}"
        if len(result["files"]) > 1:
            version += f" in {len(result['files'])} files"
        show(f"{result['file']}: {version}, {nbytes}, architecture {result['architecture']}")
    else:
        count = len(result["weight_files"])
        files = f"{count} weight file{'s' if count > 1 else ''}"
        show(f"{result['file']}: checkpoint folder, {files}, {nbytes}, model_type {result['model_type']}")
        if result["recognised"]:
            show(f"recognised: {result['recognised']}")
    if result["model"]:
        model = result["model"]
        show(
            f"model: {model['layers']} layers, hidden {model['hidden_size']}, ffn {model['intermediate_size']}, "
            f"heads {model['heads']}/{model['kv_heads']} of {model['head_dim']}, vocabulary {model['vocab_size']}, "
            f"{model['activation']}, {'tied' if model['tied'] else 'untied'} head"
        )
    layouts = ", ".join(f"{count} x {layout}" for layout, count in result["layouts"].items())
    bits = result["ternary_bits_per_weight"]
    weights = f"{result['ternary_weights']} ternary weights at {bits:.4f} bpw" if bits else "no ternary weights"
    show(f"tensors: {layouts}; {weights}" if result["tensors"] else "tensors: none")
    if result.get("dialects"):
        show(f"dialect: {', '.join(result['dialects'])}")
    if integrity := result.get("integrity"):
        show(f"integrity: {_integrity(integrity)}")
    for problem in result["problems"]:
        show(f"{'damage' if problem in result['damage'] else 'problem'}: {problem}")
    if tensors or stats:
        _table(result["tensors"])
    if not tensors and not stats:
        show("metadata:" if result["kind"] == "gguf" else "config.json:")
        for key, value in result["metadata"].items():
            show(f"  {key} = {_short(value)}")


def _integrity(integrity: dict[str, Any]) -> str:
    """What is known of the hashes that the file records, in words."""
    if not integrity["checked"]:
        return "hashes not checked (--stats)"
    if differing := integrity["differing"]:
        return f"{len(differing)} of {integrity['recorded']} tensors are not as the file records them"
    return f"intact: all {integrity['recorded']} tensors have the hashes that the file records"


def _table(rows: list[dict[str, Any]]) -> None:
    shares = f"{'-1':>6} {'0':>6} {'+1':>6} {'bits':>6}  codes"
    widest = max([30, *(len(row["name"]) for row in rows)])
    show(f"{'tensor':<{widest}} {'layout':<7} {'shape':<14} {'size':>10} {'scale':>10} {shares}")
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        line = f"{row['name']:<{widest}} {row['layout']:<7} {shape:<14} {size(row['nbytes']):>10}"
        if "codes_sha256" in row:
            scale = f"{row['scale']:.6g}" if "scale" in row else row["granularity"]
            shares = " ".join(f"{row[key]:>6.3f}" for key in ("minus", "zero", "plus", "entropy_bits"))
            line += f" {scale:>10} {shares}  {row['codes_sha256'][:12]}"
        show(line)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        text = f"[{value['length']}] {', '.join(map(repr, value['first']))}, ..."
    else:
        text = repr(value)  # which escapes it
    return text if len(text) <= 100 else text[:97] + "..."
