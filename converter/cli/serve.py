"""tritpack serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, as_gguf
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.model_options import chat_model_options, draft_option, no_mmap_option
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.version import VERSION
from tritpack.formats.errors import MissingRequirement, TritpackError


@click.command("serve")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is every network.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--api-key",
    multiple=True,
    metavar="KEY",
    help="Key that clients have to send; may be given several times. In the variable TRITPACK_SERVE_API_KEY it is "
    "not seen in the list of processes.",
)
@click.option("--alias", help="Name of the model for clients; by default that of the file.")
@click.option(
    "-np", "--parallel", type=click.IntRange(1, 256), default=4, show_default=True,
    help="Answers that are written at once. Each has a context of its own.",
)  # fmt: skip
@click.option(
    "--queue-limit", type=click.IntRange(0), default=64, show_default=True,
    help="Requests that may wait besides; further ones get status 429.",
)  # fmt: skip
@click.option(
    "--body-limit", type=click.IntRange(1), default=4 << 20, show_default=True, help="Most bytes of a request."
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=600.0, show_default=True,
    help="Seconds for a request to arrive, and again for its answer, which ends there.",
)  # fmt: skip
@click.option(
    "--cors", multiple=True, metavar="ORIGIN",
    help="Web pages that may call, such as https://example.org, or * for any; may be given several times.",
)  # fmt: skip
@click.option("--log-requests", is_flag=True, help="Log what is asked, too. Without it the log holds no text.")
@draft_option
@no_mmap_option
@chat_model_options
@json_option
def command(file: str, as_json: bool, **options: Any) -> None:
    """Answer the clients of OpenAI, Anthropic and llama-server with the model in FILE.

    This needs the extra `serve`: pip install "tritpack[serve]". The address is printed when requests are answered, with
    --json as a document. A chat page is at /. Ctrl-C or SIGTERM ends the server, after the answers that are being
    written, or 30 seconds.

    Example: tritpack serve model.gguf --port 8080 -np 4
    """
    try:
        from tritpack.runtime.serve.access import is_loopback
        from tritpack.runtime.serve.listen import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "tritpack":
            raise
        raise MissingRequirement(
            f"serve needs a web server, and {error.name} is not installed", hint='pip install "tritpack[serve]"'
        ) from error
    if not options["api_key"] and not is_loopback(options["host"]):
        show(f"warning: {options['host']} can be reached from other machines, and there is no --api-key", err=True)

    def ready(host: str, port: int, name: str) -> None:
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        if as_json:
            print_json({"schema": "tritpack.serve/1", "url": url, "host": host, "port": port, "model": name})
        else:
            show(f"{name} answers at {url} (Ctrl-C ends it)")

    with as_gguf(file) as path:
        alias = options.pop("alias") or Path(file.rstrip("/")).name.removesuffix(".gguf")
        serve(path, alias=alias, about=_about(path), on_ready=ready, **options)


def _about(path: Path) -> dict[str, Any]:
    """Return what /props says besides: the version of tritpack, and the attestation in the file's folder."""
    from tritpack.converter.release.attestation_name import attestation_name

    about: dict[str, Any] = {"version": VERSION}
    if (beside := attestation_name(path)).is_file():
        from tritpack.converter.release.attestation import read_attestation

        try:
            about["attestation"] = read_attestation(beside).document
        except TritpackError as error:
            show(f"warning: not shown to clients: {error}", err=True)
    return about
