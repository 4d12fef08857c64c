"""tritpack export."""

from __future__ import annotations

import time

import click

from tritpack.converter.cli.convert_options import one_of
from tritpack.converter.cli.file_argument import PATH, unpacked
from tritpack.converter.cli.human import size
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.progress import Progress
from tritpack.converter.storage import TRANSFORMERS
from tritpack.formats import names


@click.command("export")
@click.argument("source", type=PATH, metavar="IN.gguf")
@click.option("-o", "--output", required=True, type=PATH, metavar="DIR", help="Folder to write.")
@click.option(
    "--to",
    type=click.Choice(names.EXPORT_TARGETS),
    default=names.EXPORT_TARGETS[0],
    show_default=True,
    help="What is to read it: transformers, mlx-lm, vLLM (compressed-tensors), or ONNX Runtime.",
)
@click.option(
    "--storage",
    type=click.Choice(("auto", *TRANSFORMERS)),
    default="auto",
    show_default=True,
    help="How the linears are stored for transformers: packed codes, master weights that it quantises online, or "
    "ternary floats; auto is packed, or ternary_floats for models with float activations.",
)
@click.option(
    "--dtype",
    type=click.Choice(("auto", *names.DTYPES)),
    default="auto",
    show_default=True,
    help="Type of floats; auto is the smallest that holds all of them exactly, and float32 with --to onnx.",
)
@click.option(
    "--group-size",
    type=int,
    metavar=f"[{'|'.join(map(str, names.GROUP_SIZES))}]",
    callback=one_of(*names.GROUP_SIZES),
    help="Weights per scale with --to mlx, compressed-tensors or onnx; default: the largest size that fits (with "
    "compressed-tensors a whole row, if it has one scale).",
)
@click.option("--revision", help="Branch, tag or commit of a repository on the Hub.")
@click.option("--allow-scale-rounding", is_flag=True, help="Change scales that cannot be held, and say by how much.")
@click.option("--allow-wrong-engine", is_flag=True, help="Write the folder even if the library will run another model.")
@click.option("--force", is_flag=True, help="Replace the checkpoint's files in a folder that is not empty.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors.")
def command(
    source: str,
    output: str,
    to: str,
    storage: str,
    dtype: str,
    group_size: int | None,
    revision: str | None,
    allow_scale_rounding: bool,
    allow_wrong_engine: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a packed file (or any checkpoint) as a checkpoint folder: weights, config and tokenizer.

    Before the folder gets its name, it is read again and every code and scale is compared.

    With --to compressed-tensors, linears are stored as vLLM's `pack-quantized` with 2 bits, symmetric, per row or per
    group. The compressed-tensors library has read such folders in tests; vLLM itself was not run.

    With --to onnx the folder holds one small graph per linear (a MatMulNBits node, 2 bits), and not the whole model:
    norms, attention and tables stay out. It needs pip install "tritpack[onnx]".

    What these runtimes compute otherwise than the model (activations, above all) is said before anything is written.

    \b
    Examples: tritpack export model.gguf -o folder
              tritpack export model.gguf -o folder --storage master_weights --dtype float32
              tritpack export bonsai.gguf -o folder --to mlx
              tritpack export model.gguf -o folder --to compressed-tensors
    """
    from tritpack.converter.export.export import export

    started = time.monotonic()
    with unpacked(source, quiet=quiet) as path:
        result = export(
            path,
            output,
            to=to,
            storage=storage,
            dtype=dtype,
            group_size=group_size,
            revision=revision,
            allow_scale_rounding=allow_scale_rounding,
            allow_wrong_engine=allow_wrong_engine,
            force=force,
            progress=Progress("exporting", quiet=quiet),
            note=lambda sentence: show(f"note: {sentence}", err=True),
        )
    for warning in result.warnings:
        show(f"warning: {warning}", err=True)
    if as_json:
        print_json(
            {
                "schema": "tritpack.export/1",
                "source": source,
                "output": output,
                "to": to,
                "storage": result.storage,
                "dtype": result.dtype,
                "scale_loss": result.scale_loss,
                "nbytes": result.nbytes,
                "warnings": result.warnings,
                "differences": result.differences,
            }
        )
        return
    if quiet:
        return
    lost = "every code and scale is the same"
    if result.scale_loss:
        lost = f"every code is the same, the relative change of scales is at most {result.scale_loss:.1g}"
    seconds = time.monotonic() - started
    show(f"wrote {output}: {size(result.nbytes)}, {result.storage} {result.dtype}, {lost}, {seconds:.1f} s")
