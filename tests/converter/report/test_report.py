"""The report of verify: a published schema, and four files that people keep and paste."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_gguf
from tritpack.converter.report import plots
from tritpack.converter.report.render import FILES, as_html, as_junit, as_markdown, schema, write_report
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.rung import Report, Rung
from tritpack.converter.verify.rungs import RUNGS, load
from tritpack.formats.names import ExitCode


def valid(document: dict) -> None:
    jsonschema.Draft202012Validator(schema()).validate(document)


@pytest.fixture(scope="module")
def good(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of a good file."""
    folder = tmp_path_factory.mktemp("report") / "made" / "here"
    result = run("verify", tiny_gguf, "--source", tiny_checkpoint, "--report", folder)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def bad_gguf(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def flip(tensors: dict) -> None:
        tensors["blk.1.ffn_up.weight"][-32] ^= 1

    return edited_gguf(tiny_gguf, tmp_path_factory.mktemp("bad") / "bad.gguf", tensors=flip)


def test_the_schema_is_one_and_is_printed() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    printed = run("verify", "--json-schema")
    assert printed.exit_code == 0 and json.loads(printed.stdout) == schema()
    assert schema()["$defs"]["rung"]["properties"]["name"]["enum"] == [*RUNGS, "reproduction", "integrity", "language"]
    assert schema()["$defs"]["diagnosis"]["properties"]["kind"]["enum"] == [kind.value for kind in Kind]


def test_report_json_is_what_json_prints(good: Path, tiny_gguf: Path, tiny_checkpoint: Path) -> None:
    document = json.loads((good / "report.json").read_text("utf-8"))
    valid(document)
    printed = json.loads(run("verify", tiny_gguf, "--source", tiny_checkpoint, "--json").stdout)
    valid(printed)
    assert printed.keys() == document.keys() and document["verdict"] == "pass"
    provenance = document["provenance"]
    assert provenance["machine"]["isa"] and any(k.startswith("matvec_i2_s_") for k in provenance["kernels"])
    for rung in document["rungs"]:
        assert rung["compares"], rung["name"]
        groups = [keys for keys in (("position", "error", "kl"), ("layer", "point", "step_error"),
                                    ("tensor", "scale", "zero_share")) if keys[0] in rung["series"]]  # fmt: skip
        for keys in groups:
            assert len({len(rung["series"][key]) for key in keys if key in rung["series"]}) == 1, rung


def test_a_report_without_times(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Two climbs of a ladder on one machine give the same bytes."""
    for name in ("a", "b"):
        write_report(tmp_path / name, verify(tiny_gguf, tiny_checkpoint, level="weights").without_times())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    document = json.loads((tmp_path / "a" / "report.json").read_text("utf-8"))
    valid(document)
    assert "created" not in document["provenance"] and "seconds" not in document["rungs"][0]
    root = ElementTree.parse(tmp_path / "a" / "junit.xml").getroot()
    assert not [element for element in root.iter() if {"time", "timestamp"} & element.attrib.keys()]
    assert "| time |" not in (tmp_path / "a" / "report.md").read_text("utf-8")


def test_a_report_replaces_no_input(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_gguf, file := tmp_path / "report.json")
    for folder, sentence in ((file, "is a file, expected the name of a folder"), (tmp_path, "is an input")):
        result = run("verify", file, "--source", tiny_checkpoint, "--report", folder, "--force")
        assert exit_code_of(result) == 2 and sentence in str(result.exception), folder
    assert file.read_bytes() == tiny_gguf.read_bytes()


def test_a_wrong_file(bad_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = run(
        "verify", bad_gguf, "--source", tiny_checkpoint, "--level", "weights", "--report", tmp_path / "r", "--json"
    )
    assert exit_code_of(result) == ExitCode.CHECK_FAILED
    document = json.loads((tmp_path / "r" / "report.json").read_text("utf-8"))
    valid(document)
    assert document["verdict"] == "fail" and document["conclusion"] == "the file is wrong"
    weights = document["rungs"][1]
    [diagnosis] = weights["diagnoses"]
    assert (diagnosis["kind"], diagnosis["tensor"]) == ("scale_differs", "blk.1.ffn_up.weight")
    assert weights["findings"] == [diagnosis["sentence"]]
    assert {"file", "source"} <= set(diagnosis["figures"])
    suite = ElementTree.parse(tmp_path / "r" / "junit.xml").getroot()
    assert suite.attrib["failures"] == "1" and suite.attrib["tests"] == "2"
    [failure] = suite.iter("failure")
    assert "blk.1.ffn_up.weight" in failure.attrib["message"]
    assert "❌" in (tmp_path / "r" / "report.md").read_text("utf-8")


def test_junit_has_one_case_per_rung(good: Path) -> None:
    root = ElementTree.parse(good / "junit.xml").getroot()
    cases = list(root.iter("testcase"))
    assert [case.attrib["name"] for case in cases] == list(RUNGS)
    assert root.attrib["failures"] == "0" and float(root.attrib["time"]) > 0
    hashes = {entry.attrib["name"]: entry.attrib["value"] for entry in root.iter("property")}
    assert len(hashes["file_sha256"]) == len(hashes["source_sha256"]) == 64


def test_the_page_loads_nothing_and_has_its_charts(good: Path) -> None:
    page = (good / "report.html").read_text("utf-8")
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//|file:)", page) and "<script" not in page
    assert "@import" not in page and "url(" not in page
    for title in (
        "Error per position",
        "KL divergence per position",
        "Error by layer",
        "Scale by layer",
        "Zeros by layer",
    ):
        assert f"<title>{title}</title>" in page, title
    assert page.count("<svg") == page.count("</svg>") == 5
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(svg)
        assert "nan" not in svg and "inf" not in svg, svg


def test_names_and_texts_of_others_stay_texts() -> None:
    """A file's name, a tensor's, a template: whatever they hold, they are shown and not run."""
    rung = Rung("structure", "file", notes=["a | b\nc"])
    rung.add(Kind.TENSOR_MISSING, "tensor '<script>alert(1)</script>' | is \x00 missing")
    report = Report(
        "<img src=x>.gguf", "a|b", [rung, Rung("weights", "file", skipped="x")], {"tritpack": "0", "created": ""}
    )
    page = as_html(report)
    assert "<script>" not in page and "<img" not in page and "&lt;script&gt;" in page
    ElementTree.fromstring(as_junit(report))
    assert "\\|" in as_markdown(report) and "<script" not in as_markdown(report).replace("\\<", "")


def inline(text: str) -> Report:
    """A report that holds the text wherever a file's own text can stand."""
    rung = Rung("structure", "file", notes=[text], figures={"architecture": text}, compares=text)
    rung.add(Kind.KEY_DIFFERS, f"general.architecture is {text}")
    skipped = Rung("weights", "file", skipped=text)
    return Report(f"{text}.gguf", text, [rung, skipped], {"tritpack": "0", "created": "", "oracle": text})


HOSTILE = [
    "[x](javascript:alert(1))", "![x](http://127.0.0.1/x)", "<http://127.0.0.1/x>", "http://127.0.0.1/x",
    "www.x.test/y", "[x]: http://127.0.0.1/x", "[x][y]", "**b**", "__b__", "*i*", "_i_", "`c`", "``c``", "```", "~~s~~",
    "# h", "a | b",
    "<img src=x>", "<!-- -->", "&lt;b&gt;", "$x$", "\\", "\\[x](y)", "line\n\n# h", "line\r\n- item", "> quote",
    "- item", "1. item", "\x1b[31m", "\u202e", "`", "a`` `b",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_text_of_a_file_as_text(text: str) -> None:
    """By what a CommonMark parser with tables and bare links makes of it."""
    markdown_it = pytest.importorskip("markdown_it")
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    harmless = {"text", "code_inline", "softbreak", "strong_open", "strong_close"}  # bold is ours

    def kinds_in(report: Report) -> list[str]:
        tokens = parser.parse(as_markdown(report))
        inline = [child.type for token in tokens for child in token.children or ()]
        assert set(inline) <= harmless, set(inline) - harmless
        return [token.type for token in tokens] + [kind for kind in inline if kind != "text"]

    assert kinds_in(inline(text)) == kinds_in(inline("plain"))


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_a_file_is_markup_in_a_report(text: str) -> None:
    report = inline(text)
    page, plain = as_html(report), as_html(inline("plain"))
    assert [page.count(mark) for mark in "<>"] == [plain.count(mark) for mark in "<>"]
    root = ElementTree.fromstring(as_junit(report))
    assert [element.tag for element in root.iter()] == [
        element.tag for element in ElementTree.fromstring(as_junit(inline("plain"))).iter()
    ]
    for document in (page, as_junit(report), as_markdown(report)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", document), document[:40]
    markdown = as_markdown(report)
    assert not re.search(r"(?<!\\)(\[x\]|!\[|\*\*b|~~s|https?:|www\.)", re.sub(r"(`+).*?(?<!`)\1(?!`)", "", markdown))


def test_nobody_is_mentioned() -> None:
    assert "@someone" not in re.sub("`.*?`", "", as_markdown(inline("@someone")))


def test_reports_are_not_overwritten_unasked(
    good: Path, tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    verify = ("verify", tiny_gguf, "--source", tiny_checkpoint, "--level", "structure", "--report")
    before = {name: (good / name).read_bytes() for name in FILES}
    assert exit_code_of(run(*verify, good)) == ExitCode.USAGE
    assert {name: (good / name).read_bytes() for name in FILES} == before
    assert run(*verify, tmp_path / "r").exit_code == 0
    assert run(*verify, tmp_path / "r", "--force").exit_code == 0
    (tmp_path / "file").write_text("")
    assert exit_code_of(run(*verify, tmp_path / "file" / "r")) == ExitCode.WRITE_FAILED


@pytest.mark.parametrize(
    ("xs", "ys"),
    [([0], [0.0]), ([], []), ([0, 1], [float("nan"), float("inf")]), ([5, 5], [1e-3, 1e3])],
    ids=["one zero", "none", "not finite", "one place"],
)
def test_charts_of_odd_values_are_well_formed(xs: list[int], ys: list[float]) -> None:
    words = {"title": "t", "x_label": "x", "y_label": "y"}
    ElementTree.fromstring(plots.points(xs, ys, limits={"a < b": 1e-5}, **words))
    ElementTree.fromstring(plots.lines({"a & b": (xs, ys)}, **words))
    chart = plots.histogram(ys, **words)
    assert chart == "" or ElementTree.fromstring(chart) is not None


def _report(**failed: Kind) -> Report:
    """All rungs, of which some failed with a finding of that kind."""
    rungs = []
    for name in RUNGS:
        rungs.append(Rung(name, load(name).blames))
        if name in failed:
            rungs[-1].add(failed[name], "a sentence")
    return Report("m.gguf", "c", rungs)


@pytest.mark.parametrize(
    ("failed", "conclusion"),
    [
        ({}, f"the file holds the model of its source; rungs passed: {', '.join(RUNGS)}"),
        ({"tokenizer": Kind.TOKEN_IDS_DIFFER, "logits": Kind.OUTPUTS_DIFFER}, "the file is wrong"),
        (
            {"weights": Kind.CODES_DIFFER, "kernels": Kind.KERNEL_DIFFERS},
            "the file is wrong; so is a kernel of this machine",
        ),
        (
            {"kernels": Kind.KERNEL_DIFFERS, "logits": Kind.OUTPUTS_DIFFER},
            "a kernel is wrong on this machine, not the file",
        ),
        (
            {"generation": Kind.PINNED_TOKEN_DIFFERS},
            "the file generates what its source does; the pinned tokens are different ones",
        ),
        (
            {"generation": Kind.TOKEN_DIFFERS},
            "the file holds what the source holds, but what runs it computes something else",
        ),
    ],
)
def test_the_conclusion_follows_from_what_rungs_blame_and_from_kinds(failed: dict[str, Kind], conclusion: str) -> None:
    assert _report(**failed).conclusion == conclusion
