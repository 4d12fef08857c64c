"""tritpack inspect."""

from __future__ import annotations

from typing import Any

import click

from tritpack.converter.cli.file_argument import as_gguf
from tritpack.converter.cli.main import print_json


@click.command("inspect")
@click.argument("file", metavar="FILE")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option(
    "--stats",
    is_flag=True,
    help="Decode every ternary tensor: scale, shares, entropy, hash of the codes.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def command(file: str, tensors: bool, stats: bool, as_json: bool) -> None:
    """Show what FILE (a GGUF, or a checkpoint folder) really contains.

    The sizes of tensors decide their layouts, because forks use the same type id for different layouts.
    """
    from tritpack.converter.tools.inspect import inspect

    with as_gguf(file) as path:
        result = inspect(path, stats=stats)
    result["file"] = file
    if as_json:
        print_json(result)
        return
    click.echo(
        f"{file}: GGUF v{result['gguf_version']}, {result['nbytes']} bytes, architecture {result['architecture']}"
    )
    if result["model"]:
        model = result["model"]
        click.echo(
            f"model: {model['layers']} layers, hidden {model['hidden_size']}, ffn {model['intermediate_size']}, "
            f"heads {model['heads']}/{model['kv_heads']} of {model['head_dim']}, vocabulary {model['vocab_size']}, "
            f"{model['activation']}, {'tied' if model['tied'] else 'untied'} head"
        )
    layouts = ", ".join(f"{count} x {layout}" for layout, count in result["layouts"].items())
    bits = result["ternary_bits_per_weight"]
    click.echo(
        f"tensors: {layouts}" + (f"; {result['ternary_weights']} ternary weights at {bits:.4f} bpw" if bits else "")
    )
    if result["dialects"]:
        click.echo(f"dialect: {', '.join(result['dialects'])}")
    for problem in result["problems"]:
        click.echo(f"problem: {problem}")
    if tensors or stats:
        _table(result["tensors"])
    if not tensors and not stats:
        click.echo("metadata:")
        for key, value in result["metadata"].items():
            click.echo(f"  {key} = {_short(value)}")


def _table(rows: list[dict[str, Any]]) -> None:
    shares = f"{'-1':>6} {'0':>6} {'+1':>6} {'bits':>6}  codes"
    click.echo(f"{'tensor':<30} {'layout':<7} {'shape':<14} {'bytes':>11} {'scale':>10} {shares}")
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        line = f"{row['name']:<30} {row['layout']:<7} {shape:<14} {row['nbytes']:>11}"
        if "codes_sha256" in row:
            scale = f"{row['scale']:.6g}" if "scale" in row else row["granularity"]
            shares = " ".join(f"{row[key]:>6.3f}" for key in ("minus", "zero", "plus", "entropy_bits"))
            line += f" {scale:>10} {shares}  {row['codes_sha256'][:12]}"
        click.echo(line)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return f"[{value['length']}] {', '.join(map(repr, value['first']))}, ..."
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
