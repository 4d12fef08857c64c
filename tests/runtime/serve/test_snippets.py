"""The snippets of README.md, run as they stand, but for the port."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY
from tests.make.server import Running

README = (REPOSITORY / "README.md").read_text("utf-8")
SECTION = README[README.index("## Serve") :].partition("\n## ")[0]
SNIPPETS = re.findall(r"^```(sh|python)\n(.*?)^```", SECTION, re.M | re.S)


def test_there_are_three() -> None:
    assert [language for language, _ in SNIPPETS] == ["sh", "python", "python"]


@pytest.mark.parametrize(("language", "text"), SNIPPETS, ids=["curl", "openai", "anthropic"])
def test_a_snippet_gets_an_answer(demo: Running, language: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    if language == "python":
        package = text.split()[1]
        pytest.importorskip(package, reason=f"the client `{package}` is not installed")
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{demo.address[1]}")
    if language == "sh":
        done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)["choices"][0]["message"]["content"]
    else:
        exec(compile(text, "README.md", "exec"), {})
        answer = capsys.readouterr().out
    assert len(answer) > 20


def test_the_page_on_serving_names_every_endpoint() -> None:
    from tritpack.runtime.serve.app import GETS, POSTS

    page = (REPOSITORY / "docs" / "serve.md").read_text("utf-8")
    for path in (*POSTS, *GETS, "/health"):
        assert f"{path}`" in page, path
