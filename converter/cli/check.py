"""tritpack check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.progress import Alive, Progress
from tritpack.formats.printable import printable

if TYPE_CHECKING:
    from tritpack.converter.release.check import Check


@click.command("check")
@click.argument("file", type=PATH, metavar="FILE")
@click.option(
    "--attestation",
    type=PATH,
    metavar="A",
    help="The attestation of a GGUF; by default NAME.intoto.json in the same folder.",
)
@click.option(
    "--source",
    type=PATH,
    metavar="SOURCE",
    help="Prove it again: climb the ladder of `verify` against this checkpoint, to the attested level.",
)
@click.option("--revision", help="Branch, tag or commit of a repository on the Hub.")
@click.option(
    "--public-key",
    type=PATH,
    metavar="KEY.pub",
    help="Require that it is signed with this key, by sigstore's model_signing.",
)
@click.option(
    "--signature",
    type=PATH,
    metavar="SIG",
    help="The signature: of the attestation or, for a release, of the bundle or of the folder's manifest.json. By "
    "default NAME.intoto.json.sig in the folder of each attestation.",
)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def command(
    file: str,
    attestation: str | None,
    source: str | None,
    revision: str | None,
    public_key: str | None,
    signature: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check that FILE is the file that its attestation is about, byte for byte, and that it was proved.

    FILE is a GGUF, or a release: a bundle or a folder, in which every file, every attestation and the hashes in the
    card are checked. A signature protects against intent; without --public-key only accidents are found.

    \b
    Examples: tritpack check model.gguf
              tritpack check NAME.tar.zst --public-key KEY.pub --signature NAME.tar.zst.sig
              tritpack check model.gguf --attestation model.intoto.json --source ORG/NAME

    The exit code is 6 where a hash differs, 1 if what was attested is not a pass, or if a proof against --source fails
    now, and 3 for an attestation that is missing or damaged.
    """
    from tritpack.converter.release.check import check

    with Alive(quiet=quiet) as alive:
        result = check(
            file,
            attestation=attestation,
            source=source,
            revision=revision,
            public_key=public_key,
            signature=signature,
            reading=Progress("checking", quiet=quiet),
            progress=alive.show,
            climbed=lambda rung: alive.hide(),
        )
    if as_json:
        print_json(result.as_json())
    else:
        _show(result)


def _show(result: Check) -> None:
    for checked in result.attested:
        for name, digest in checked.attestation.subjects.items():
            show(f"intact  {digest}  {name}")
        predicate = checked.attestation.predicate
        show(f"proved by tritpack {predicate['verifier']['version']}: {predicate['conclusion']}")
        show(f"source  {checked.attestation.source}")
    for note in result.notes:
        show(f"note: {note}")
    good = click.style("GOOD", fg="green", bold=True)
    click.echo(f"{good}: {printable(result.conclusion)}")
