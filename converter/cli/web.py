"""tritpack web."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, as_gguf
from tritpack.converter.cli.human import size
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import ByteSize, json_option
from tritpack.converter.cli.progress import Progress
from tritpack.formats import names
from tritpack.formats.errors import UsageError


@click.command("web")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("-o", "--output", type=PATH, metavar="DIR", help="Folder to write; --serve can do without.")
@click.option("--serve", is_flag=True, help="Show the folder on this machine until you press Ctrl+C.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that --serve listens on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8158, show_default=True, help="Port of --serve; 0: any.")
@click.option("--name", help="What the page calls the model; the name of FILE by default.")
@click.option(
    "-c",
    "--context",
    type=click.IntRange(min=1),
    help="Positions of the KV cache; default: 2048, or all of the model.",
)
@click.option(
    "--kv-type", type=click.Choice(names.KV_TYPES), default="f32", show_default=True,
    help="Type of the KV cache. i16 needs half the memory and rounds like f16.",
)  # fmt: skip
@click.option(
    "--part-size", type=ByteSize(), metavar="SIZE", default=24 << 20,
    help="Largest file that the host takes: 24M (default: 24 MiB), 100M.",
)  # fmt: skip
@click.option("-t", "--threads", type=click.IntRange(1, 256), help="Threads that compute the golden prompt; all cores.")
@click.option("--force", is_flag=True, help="Replace a folder that tritpack web wrote.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress and no summary.")
@json_option
def command(
    file: str,
    output: str | None,
    serve: bool,
    host: str,
    port: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Write a web page on which FILE runs in the visitor's browser: static files for any host.

    The page holds a chat, the C library as WebAssembly, and the model in parts. Nothing is installed and nothing is
    sent anywhere; after the first visit it works without a network. The model computes what it computes here, bit for
    bit, and the page's button "Prove it" shows that.

    \b
    Examples: tritpack web model.gguf -o site
              tritpack web model.gguf --serve
    """
    from tritpack.converter.web.assets import require_engine
    from tritpack.converter.web.server import server
    from tritpack.converter.web.web import web

    if output is None and not serve:
        raise UsageError("nothing says where the page goes", hint="give -o DIR, or --serve to look at it")
    require_engine()
    with contextlib.ExitStack() as stack:
        done = f"wrote {output}"
        if output is None:
            output = str(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tritpack-web-"))) / "site")
            done = "made a temporary page"
        listening = server(Path(output), host, port) if serve else None  # a port that is taken is told at once
        path = stack.enter_context(as_gguf(file))
        result = web(path, output, progress=Progress("writing", quiet=quiet or as_json), **options)
        if as_json:
            print_json(
                {
                    "schema": "tritpack.web_folder/1",
                    "output": str(result.path),
                    "files": result.files,
                    "nbytes": result.nbytes,
                    "parts": result.parts,
                    "memory": result.memory,
                    "context": result.context,
                    "sha256": result.sha256,
                }
            )
        elif not quiet:
            parts = f"{result.parts} part{'s' * (result.parts != 1)}"
            show(
                f"{done}: {size(result.nbytes)} in {len(result.files)} files, the model in {parts}; the page "
                f"needs {size(result.memory)} of memory with a context of {result.context} tokens"
            )
        if listening:
            _serve(listening, host)


def _serve(listening: Any, host: str) -> None:
    shown = f"[{host}]" if ":" in host else host
    show(f"open http://{shown}:{listening.server_port}/ in a browser; Ctrl+C ends it", err=True)
    with listening, contextlib.suppress(KeyboardInterrupt):
        listening.serve_forever()
