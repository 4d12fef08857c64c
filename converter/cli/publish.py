"""tritpack publish."""

from __future__ import annotations

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.human import size
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.progress import Progress


@click.command("publish")
@click.argument("source", type=PATH, metavar="BUNDLE|DIR")
@click.argument("repository", metavar="ORG/NAME")
@click.option("--upload", is_flag=True, help="Upload. Without it, only what would be uploaded is listed.")
@click.option("--private", is_flag=True, help="Create the repository as a private one; refuse a public one.")
@click.option("--revision", metavar="BRANCH", help="Branch to upload to; it is created if need be. Default: main.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def command(
    source: str, repository: str, upload: bool, private: bool, revision: str | None, as_json: bool, quiet: bool
) -> None:
    """Publish a release folder, or the files in a bundle, as a model repository on the Hub.

    The manifest is checked first; the exit code is 6 if a byte differs. All files appear in one commit. A run that was
    interrupted is continued by the same command: files that were sent are not sent again. HF_TOKEN or `hf auth login`
    gives the token, which needs the right to write; HF_ENDPOINT names another Hub.

    \b
    Examples: tritpack publish releases/NAME ORG/NAME
              tritpack publish releases/NAME.tar.zst ORG/NAME --upload --private
    """
    from tritpack.converter.release.publish import publish

    if upload:
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()  # there is one of ours
    published = publish(
        source,
        repository,
        upload=upload,
        private=private,
        revision=revision,
        progress=Progress("publishing", quiet=quiet),
    )
    if as_json:
        print_json(published.as_json())
        return
    for path, nbytes in published.files:
        show(f"{size(nbytes):>10}  {path}")
    files, total = len(published.files), size(published.nbytes)
    if published.url is None:
        show(f"would upload {files} files, {total}, to {repository}; --upload does it")
    else:
        show(f"uploaded {files} files, {total}: {published.url}")
