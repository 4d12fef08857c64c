"""tritpack bench."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, as_gguf
from tritpack.converter.cli.human import size
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.model_options import ISA_HELP, KV_TYPE_HELP, no_mmap_option
from tritpack.converter.cli.progress import Progress
from tritpack.formats import names
from tritpack.formats.errors import UsageError
from tritpack.formats.names import ExitCode

LARGE = 64 << 20
"""Bytes of a file that caches surely do not hold."""
MOST = 0.9
"""The share of huge pages from which on their lack is not worth a word."""
MOVED = 1.1
"""How far the largest limit of a row may lie above its smallest on a quiet machine."""


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int] | None:
    """Parse `1,2,4`."""
    if value is None:
        return None
    try:
        numbers = [int(part) for part in value.split(",")]
    except ValueError:
        numbers = [-1]
    if not all(0 <= n <= 1 << 24 for n in numbers):
        raise click.BadParameter(f"{value!r}: expected numbers such as 1,2", ctx, param)
    return numbers


@click.command("bench")
@click.argument("file", type=PATH, metavar="FILE", required=False)
@click.option(
    "-p",
    "--n-prompt",
    callback=_numbers,
    metavar="N,N",
    help="Prompt lengths; 0 measures none; default: 512, or the model's context if it is shorter.",
)
@click.option(
    "-n",
    "--n-gen",
    callback=_numbers,
    metavar="N,N",
    help="Numbers of tokens to decode; 0 measures none; default: 128, or the model's context if it is shorter.",
)
@click.option(
    "--batch",
    "n_batch",
    callback=_numbers,
    metavar="N,N",
    help="Numbers of tokens to evaluate at once with the logits of each; without -p and -n nothing else is measured.",
)
@click.option(
    "--sequences",
    "n_sequences",
    callback=_numbers,
    metavar="N,N",
    help="Numbers of sequences to decode together, as a server does; without -p and -n nothing else is measured.",
)
@click.option("-d", "--n-depth", type=click.IntRange(min=0), default=0, help="Tokens in the context before the test.")
@click.option("-t", "--threads", callback=_numbers, metavar="N,N", help="Thread counts; all cores by default.")
@click.option(
    "-r", "--repetitions", type=click.IntRange(min=1), default=5, show_default=True, help="Repetitions of each test."
)
@click.option("--kv-type", type=click.Choice(names.KV_TYPES), default="f32", show_default=True, help=KV_TYPE_HELP)
@click.option(
    "--isa",
    type=click.Choice(names.ISAS),
    help=ISA_HELP,
)
@no_mmap_option
@click.option("--parts", is_flag=True, help="Also say where the time of a decoded token goes.")
@click.option("--kernels", is_flag=True, help="Compare every kernel with scalar, then time it.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["md", "json", "csv"]),
    default="md",
    show_default=True,
    help="Format.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
def command(
    file: str | None,
    n_prompt: list[int] | None,
    n_gen: list[int] | None,
    n_batch: list[int] | None,
    n_sequences: list[int] | None,
    n_depth: int,
    threads: list[int] | None,
    repetitions: int,
    kv_type: str,
    isa: str | None,
    no_mmap: bool,
    parts: bool,
    kernels: bool,
    output: str,
    as_json: bool,
) -> None:
    """Time the model in FILE in llama-bench's terms: ppN evaluates N tokens at once, tgN decodes N one by one.

    batchN evaluates N tokens at once and computes the logits of each, as speculation does; seqN decodes N sequences
    together, as serving does. Each row has the median of its repetitions, the slowest and the fastest, and its share of
    a limit of this machine, which is measured before and after each repetition: for decoding, reads of the weights
    where the model reads them; for prompts, int8 dot products; for batches and sequences, the lower of the two, as for
    decoding with float activations, whose products are of floats that are multiplied and added without FMA.

    Example: tritpack bench model.gguf -p 512 -n 128 -t 1,2
    """
    from tritpack.runtime.bench import bench, bench_kernels

    output = "json" if as_json else output
    if kernels:
        if file is not None:
            raise UsageError("--kernels does not measure a model", hint="omit FILE")
        result = bench_kernels(progress=Progress("timing", unit="kernels"))
        if output == "json":
            print_json(result)
        else:
            _print(output, *_kernel_table(result))
        if any(kernel["state"] == "wrong" for kernel in result["kernels"]):
            sys.exit(ExitCode.CHECK_FAILED)
        return
    if file is None:
        raise UsageError("FILE is missing", hint="give a FILE to measure a model, or --kernels")
    if threads is not None and 0 in threads:
        raise UsageError("0 threads cannot run anything", hint="give -t 1 or more")
    with as_gguf(file) as path:
        result = bench(
            path,
            n_prompt=n_prompt,
            n_gen=n_gen,
            n_batch=n_batch,
            n_sequences=n_sequences,
            n_depth=n_depth,
            threads=threads,
            repetitions=repetitions,
            isa=isa,
            kv_type=kv_type,
            no_mmap=no_mmap,
            parts=parts,
            progress=Progress("timing", unit="tests"),
        )
    if result["shortened"]:
        context = result["context_length"]
        show(f"note: the tests are shorter than usual, to fit the model's context of {context} tokens", err=True)
    result["file"] = file  # not the temporary file that a checkpoint was converted to
    if output == "json":
        print_json(result)
        return
    _print(output, *_model_table(result))
    if output == "md":
        first = ", ".join(f"{s:.2f} s on {t}" for t, s in result["first_token_seconds"].items())
        rss = result["peak_rss_bytes"]
        click.echo(f"\n{result['machine']['cpu']}; kernels of {result['machine']['isa']}; {result['kv_type']} cache")
        click.echo(f"{size(result['file_bytes'])} file ({', '.join(result['layouts'])}); first token: {first} threads")
        click.echo(f"peak memory {size(rss)}, the file's pages included" if rss else "peak memory unknown")
        for threads_used, seconds in result["part_seconds"].items():
            whole = sum(seconds.values())
            shown = ", ".join(f"{part} {taken / whole:.1%}" for part, taken in seconds.items())
            click.echo(f"of a token's {whole * 1e3:.3g} ms on {threads_used} threads: {shown}")
        for line in _page_lines(result):
            click.echo(line)


def _page_lines(result: dict[str, Any]) -> Iterator[str]:
    """What a reader has to know to compare these figures with those of another run."""
    shares = [share for share in result["huge_pages"].values() if share is not None]
    if shares and result["file_bytes"] >= LARGE:
        few = min(shares) < MOST and not result["no_mmap"]
        slower = ", so decoding is slower than it could be: --no-mmap copies them into such pages" if few else ""
        yield f"{min(shares):.0%} of the weights lie in huge pages{slower}"
    for row in result["rows"]:
        kind, unit = f"{row['bound']}_limits", "GB/s" if row["bound"] == "read" else "GMAC/s"
        low, high = min(row[kind], default=0.0), max(row[kind], default=0.0)
        if high > MOVED * low > 0:
            yield (
                f"the limit of {row['test']} on {row['threads']} threads lay between {low / 1e9:.1f} and "
                f"{high / 1e9:.1f} {unit} while it ran: something else moved it, so compare shares, not speeds"
            )


def _model_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = ["test", "threads", "t/s", "range", "reached", "limit", "share", "J/token"]
    rows = []
    for row in result["rows"]:
        reads, limit = row["bound"] == "read", f"{row['bound']}_limit"
        reached, unit = ("bytes_per_second", "GB/s") if reads else ("macs_per_second", "GMAC/s")
        share, joules = row["share_of_limit"], row["joules_per_token"]
        rows.append(
            [
                row["test"],
                str(row["threads"]),
                f"{row['tokens_per_second']:.2f}",
                f"{row['lowest']:.2f}-{row['highest']:.2f}",
                f"{row[reached] / 1e9:.1f} {unit}",
                f"{row[limit] / 1e9:.1f} {unit}" if row[limit] else "",
                f"{share:.0%}" if share is not None else "",
                f"{joules:.2f}" if joules is not None else "",
            ]
        )
    return head, rows


def _kernel_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for kernel in result["kernels"]:
        products = "macs_per_second" in kernel
        speed = kernel["macs_per_second" if products else "bytes_per_second"]
        shown = f"{speed / 1e9:.2f} {'GMAC/s' if products else 'GB/s'}" if speed else ""
        rows.append([kernel["symbol"], kernel["state"], shown])
    return ["kernel", "against scalar", "speed, 1 thread"], rows


def _print(output: str, head: list[str], rows: list[list[str]]) -> None:
    if output == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([head, *rows])
        click.echo(text.getvalue(), nl=False)
        return
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    left = 1 if head[0] == "test" else 2
    for number, line in enumerate([head, *rows]):
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("| " + " | ".join(cells) + " |")
        if number == 0:
            rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
            click.echo("| " + " | ".join(rule) + " |")
