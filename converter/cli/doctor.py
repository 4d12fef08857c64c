"""tritpack doctor."""

from __future__ import annotations

import sys

import click

from tritpack.converter.cli.main import print_json
from tritpack.formats.names import ExitCode


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def command(as_json: bool) -> None:
    """Check this machine: versions, CPU, every kernel against scalar, and a small model run end to end on every ISA.

    Please paste the output into a bug report.
    """
    from tritpack.converter.tools.doctor import doctor

    result = doctor()
    if as_json:
        print_json(result)
    else:
        for name, version in result["versions"].items():
            click.echo(f"{name:<16} {version}")
        click.echo(f"{'cpu':<16} {result['cpu']}")
        for isa in result["isas"]:
            click.echo(f"{'isa':<16} {isa['name']:<11} {'available' if isa['available'] else 'not on this CPU'}")
        for kernel in result["kernels"]:
            click.echo(
                f"{'kernel':<16} {kernel['symbol']:<32} {kernel['state']}{', active' if kernel['active'] else ''}"
            )
        for check in result["checks"]:
            mark = click.style("ok", fg="green") if check["verdict"] == "pass" else click.style("FAILED", fg="red")
            click.echo(f"{mark} {check['name']}: {check['detail']}")
    if result["verdict"] != "pass":
        sys.exit(ExitCode.CHECK_FAILED)
