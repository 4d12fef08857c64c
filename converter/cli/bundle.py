"""tritpack bundle."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.human import size
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.progress import Progress

if TYPE_CHECKING:
    from tritpack.converter.release.contents import TernaryPart
    from tritpack.converter.release.manifest import Manifest

BUNDLE = click.argument("bundle", type=PATH, metavar="NAME.tar.zst")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors.")


@click.group("bundle")
def command() -> None:
    """Pack a release into one file, check it, unpack it.

    A bundle is a folder as NAME.tar.zst. The same files give the same bytes. manifest.json in front of them has the
    SHA-256 of each, and of the codes of every ternary tensor. `tar --zstd -x` unpacks it too. Other commands take a
    bundle as FILE, with #MEMBER after it where it has several GGUFs.
    """


@command.command("create", short_help="Write the files of a folder as a bundle.")
@click.argument("folder", type=PATH, metavar="FOLDER")
@click.option("-o", "--output", required=True, type=PATH, metavar="NAME.tar.zst", help="Bundle to write.")
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Threads that compress; 0, the default, is all cores. The output is the same with any number.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@json_option
@QUIET
def create(folder: str, output: str, threads: int, force: bool, as_json: bool, quiet: bool) -> None:
    """Write the files of FOLDER as a bundle, and compare the bits per ternary weight with the entropy of the codes.

    A manifest.json in FOLDER is what the files must be; without one it is made. Hidden files are left out.

    Example: tritpack bundle create releases/NAME -o releases/NAME.tar.zst
    """
    from tritpack.converter.release.bundle.create import create_bundle

    started = time.monotonic()
    made = create_bundle(folder, output, threads=threads, force=force, progress=Progress("bundling", quiet=quiet))
    for path in made.left_out:
        show(f"warning: {path} is hidden and was left out", err=True)
    for path, part in made.ternary.items():
        for problem in part.problems:
            show(f"warning: {path}: {problem}", err=True)
    if as_json:
        print_json(
            {
                "schema": "tritpack.bundle.create/1",
                "output": output,
                "nbytes": made.nbytes,
                "unpacked_bytes": made.manifest.nbytes,
                "left_out": made.left_out,
                "ternary": {path: _figures(part) for path, part in made.ternary.items()},
            }
        )
    elif not quiet:
        for path, part in made.ternary.items():
            show(f"{path}: {_sentence(part)}")
        files, seconds = len(made.manifest.files), time.monotonic() - started
        unpacked = size(made.manifest.nbytes)
        show(f"wrote {output}: {size(made.nbytes)}, {unpacked} in {files} files and a manifest, {seconds:.1f} s")


def _figures(part: TernaryPart) -> dict[str, Any]:
    return {
        "layouts": part.layouts,
        "weights": part.weights,
        "bits_per_weight": part.bits_per_weight,
        "entropy_bits": part.bound,
        "problems": part.problems,
    }


def _sentence(part: TernaryPart) -> str:
    bits = part.bits_per_weight
    if bits is None or not part.bound:
        return f"{part.weights} ternary weights"
    what = f"{part.weights} ternary weights in {', '.join(part.layouts)}"
    above = f"{bits / part.bound - 1:+.1%}"
    return f"{what}, {bits:.4f} bits per weight, entropy of the codes {part.bound:.4f} ({above})"


@command.command("check", short_help="Compare a bundle with its manifest; nothing is unpacked.")
@click.argument("bundle", type=PATH, metavar="NAME.tar.zst|FOLDER")
@json_option
@QUIET
def check(bundle: str, as_json: bool, quiet: bool) -> None:
    """Compare every file of a bundle with the manifest, and the codes of every ternary tensor. Nothing is unpacked.

    The exit code is 6 if a file is changed, missing or not listed, 3 if the bundle is damaged or hostile.
    """
    from tritpack.converter.release.bundle.check import check_bundle
    from tritpack.converter.release.manifest import AGAINST_ACCIDENTS

    found = check_bundle(bundle, progress=Progress("checking", quiet=quiet))
    for problem in found.problems:
        show(f"warning: {problem}", err=True)
    if as_json:
        result = {"problems": found.problems, "tensors": found.tensors, "note": AGAINST_ACCIDENTS}
        print_json({"schema": "tritpack.bundle.check/1", "bundle": bundle, **_listing(found.manifest), **result})
    elif not quiet:
        files = f"{len(found.manifest.files)} files, {size(found.manifest.nbytes)}"
        show(f"{bundle}: intact: {files}, and the codes of {found.tensors} ternary tensors")
        show(f"note: {AGAINST_ACCIDENTS}")


@command.command("extract", short_help="Unpack a bundle into a new folder.")
@BUNDLE
@click.option("-o", "--output", type=PATH, metavar="FOLDER", help="Folder to make; the bundle's name by default.")
@json_option
@QUIET
def extract(bundle: str, output: str | None, as_json: bool, quiet: bool) -> None:
    """Unpack a bundle into a new folder, which appears when every file in it has the hash that the manifest lists."""
    from tritpack.converter.release.bundle.extract import extract_bundle

    folder = extract_bundle(bundle, output, progress=Progress("unpacking", quiet=quiet))
    if as_json:
        print_json({"schema": "tritpack.bundle.extract/1", "bundle": bundle, "output": str(folder)})
    elif not quiet:
        show(f"wrote {folder}")


@command.command("list", short_help="Print the files of a bundle.")
@BUNDLE
@json_option
def list_(bundle: str, as_json: bool) -> None:
    """Print the files of a bundle as its manifest lists them. The files themselves are not read: `check` does that."""
    from tritpack.converter.release.bundle.check import list_bundle

    manifest = list_bundle(bundle)
    if as_json:
        print_json({"schema": "tritpack.bundle.list/1", "bundle": bundle, **_listing(manifest)})
        return
    show(f"{bundle}: {manifest.name or 'without a name'}, {size(manifest.nbytes)} in {len(manifest.files)} files")
    for entry in manifest.files.values():
        show(f"{entry.sha256}  {size(entry.nbytes):>10}  {entry.path}")


def _listing(manifest: Manifest) -> dict[str, Any]:
    files = [{"path": entry.path, "nbytes": entry.nbytes, "sha256": entry.sha256} for entry in manifest.files.values()]
    return {"name": manifest.name, "files": files, "codes_sha256": manifest.codes_sha256}
