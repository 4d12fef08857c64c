"""The pages in docs that commands make: they are what the commands print, and their links lead somewhere."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from tests.conftest import REPOSITORY
from tritpack.converter.cli.main import cli
from tritpack.converter.report.markdown import heading_anchor


@pytest.mark.parametrize("command", ["engines", "families"])
def test_a_page_is_what_its_command_prints(command: str) -> None:
    printed = CliRunner().invoke(cli, [command, "--markdown"])
    page = (REPOSITORY / "docs" / f"{command}.md").read_text("utf-8")
    assert printed.output == page, f"run: tritpack {command} --markdown > docs/{command}.md"


@pytest.mark.parametrize("command", ["engines", "families"])
def test_links_within_a_page_lead_to_headings(command: str) -> None:
    page = (REPOSITORY / "docs" / f"{command}.md").read_text("utf-8")
    anchors = {heading_anchor(heading.replace("\\", "")) for heading in re.findall("^#+ (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors
    for target in re.findall(r"\]\(([a-z]+\.md)\)", page):
        assert (REPOSITORY / "docs" / target).is_file(), target
