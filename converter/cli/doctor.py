"""tritpack doctor."""

from __future__ import annotations

import sys
from typing import Any

import click

from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.progress import Alive
from tritpack.formats.names import ExitCode

MARKS = {"pass": ("passed", "green"), "fail": ("failed", "red"), "skipped": ("skipped", "yellow")}


@click.command("doctor")
@click.option("-v", "--verbose", is_flag=True, help="List every instruction set and every kernel.")
@json_option
def command(verbose: bool, as_json: bool) -> None:
    """Check this machine: versions, CPU, every kernel against scalar, and a small model run end to end on every ISA.

    Please paste the output into a bug report. The exit code is 1 if a check failed, and 7 if the C library is missing.
    """
    from tritpack.converter.tools.doctor import doctor

    with Alive() as alive:
        alive.show("checking this machine")
        result = doctor()
    if as_json:
        print_json(result)
    else:
        _show(result, verbose)
    if any(check["verdict"] == "fail" for check in result["checks"]):
        sys.exit(ExitCode.CHECK_FAILED)
    if result["missing"]:
        sys.exit(ExitCode.MISSING)


def _show(result: dict[str, Any], verbose: bool) -> None:
    versions = dict(result["versions"])
    system = f"{versions.pop('tritpack')}, Python {versions.pop('python')}, {versions.pop('system')}"
    cores = f"{result['cores']} core{'s' if result['cores'] > 1 else ''}"
    isas = " ".join(isa["name"] for isa in result["isas"] if isa["available"])
    click.echo(f"tritpack  {system}")
    click.echo(f"packages  {', '.join(f'{name} {version}' for name, version in versions.items())}")
    click.echo(f"cpu       {result['cpu'].partition(';')[0]}, {cores}")
    bandwidth = result["bandwidth"]
    figure = bandwidth["bytes_per_second"]
    click.echo(f"memory    {f'{figure / 1e9:.3g} GB/s, ' if figure else ''}{bandwidth['how']}")
    file, copy = ("an unknown part" if share is None else f"{share:.0%}" for share in result["huge_pages"].values())
    if any(share is not None for share in result["huge_pages"].values()):
        click.echo(
            f"pages     pages of 2 MB hold {file} of a file written here, {copy} of weights copied with --no-mmap"
        )
    click.echo(f"kernels   {isas or 'none'}" + (f"; {result['best_isa']} is used" if isas else ""))
    if verbose:
        click.echo(f"features  {result['cpu'].partition(';')[2].strip() or 'unknown'}")
        for isa in result["isas"]:
            click.echo(f"{'isa':<9} {isa['name']:<11} {'available' if isa['available'] else 'not on this CPU'}")
        for kernel in result["kernels"]:
            click.echo(
                f"{'kernel':<9} {kernel['symbol']:<32} {kernel['state']}{', active' if kernel['active'] else ''}"
            )
    for check in result["checks"]:
        word, colour = MARKS[check["verdict"]]
        click.echo(f"{click.style(f'{word:<9}', fg=colour)} {check['name']}: {check['detail']}")
    if result["missing"]:
        click.echo(f"{click.style('missing  ', fg='red')} {result['missing']}\nhint: {result['hint']}")
    elif not verbose:
        click.echo(f"{len(result['kernels'])} kernels are listed by doctor -v")
