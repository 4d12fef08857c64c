"""`import tritpack`: its names, its types, and that a function has the arguments of the command of the same name."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import tritpack
from tests.conftest import REPOSITORY, run
from tests.make.checkpoints import edited_gguf
from tritpack.converter.cli.main import cli
from tritpack.formats import names
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.ternary import TernaryTensor

REQUIRED = object()
PATH = "prompt_file"  # of a command alone: a callable takes the text, and those of texts take one
MODEL = {"threads", "isa", "kv_type", "context", "no_mmap"}
DRAFT = {"draft", "draft_model"}
SAMPLING = {"temp", "top_k", "top_p", "min_p", "repeat_penalty", "seed"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A callable and its command. screen: parameters of the command only; python: those of the callable only."""

    callable: str
    command: str
    screen: set[str]
    python: set[str]

    def get(self) -> Callable[..., Any]:
        name, _, method = self.callable.partition(".")
        public = getattr(tritpack, name)
        return getattr(public, method) if method else public


WRITING = {"as_json", "quiet", "dry_run", "tensors"}
TEXT = {
    "as_json", "max_tokens", "no_special", "prompt", "tokens", "chat", "system", "stop", "logprobs", "json_schema",
    "grammar",
}  # fmt: skip
BATCH = {"prompt_cache", "batch_file", "parallel", "output", "force", "quiet"}
ROWS = [
    Row("convert", "convert", WRITING, {"progress"}),
    Row("repack", "repack", WRITING, {"progress"}),
    Row("merge", "merge", {"as_json", "quiet"}, {"progress"}),
    Row("export", "export", {"as_json", "quiet"}, {"progress", "note"}),
    Row("diff", "diff", {"as_json", "quiet", "tensors", "metadata", "html", "force"}, {"progress"}),
    Row(
        "inspect", "inspect",
        {"as_json", "tensors", "metadata", "engines", "markdown", "files", "fail_on", "shape", "outtype",
         "embedding_type", "html", "force"},
        {"file"},
    ),
    Row(
        "verify", "verify", {"as_json", "quiet", "layers", "folder", "report", "attest", "bom", "sign_key", "force",
         "json_schema", "engine", "engine_arg", "engine_timeout"},
        {"progress", "climbed"},
    ),
    Row("check", "check", {"as_json", "quiet"}, {"reading", "progress", "climbed"}),
    Row("publish", "publish", {"as_json", "quiet"}, {"progress"}),
    Row("web", "web", {"as_json", "quiet", "output", "serve", "host", "port"}, {"output", "progress"}),
    Row("perplexity", "perplexity", {"as_json", "quiet"}, {"progress"}),
    Row("bench", "bench", {"as_json", "output", "kernels"}, {"progress"}),
    Row("generate", "generate", {"as_json", *BATCH}, {"on_text"}),
    Row("Model", "generate", {*TEXT, *SAMPLING, *BATCH}, {"int8_activations", "sequences"}),
    Row("Model.generate", "generate", {"as_json", "file", *BATCH, *MODEL, *DRAFT}, {"on_text"}),
    Row("Model.chat", "chat", {"file", "no_history", "prompt_cache", *MODEL, *DRAFT}, {"messages", "on_text"}),
    Row("Model.tokenize", "tokenize", {"as_json", "file", "only_ids", "prompt"}, {"prompt"}),
    Row("Model.detokenize", "detokenize", {"as_json", "file", "tokens", "tokens_file"}, {"tokens"}),
    Row("Model.logits", "logits", {"as_json", "file", "output", "force", "prompt", *MODEL}, {"prompt"}),
    Row("Model.embed", "embed", {"as_json", "file", "output", "force", "prompt", *MODEL}, {"prompt"}),
]  # fmt: skip


def normal(value: Any) -> Any:
    """A default as both sides write it: click has lists for tuples, and choices of numbers as text."""
    if isinstance(value, (list, tuple)):
        return tuple(value)
    return int(value) if isinstance(value, str) and value.isdigit() else value


def of_command(name: str) -> dict[str, Any]:
    """What a command gets when a user types what is required and nothing else."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if p.required and p not in arguments]
    typed = ["x" for _ in arguments] + [word for option in options for word in (option.opts[-1], "x")]
    defaults = command.make_context(name, typed).params
    required = {p.name for p in (*arguments, *options)}
    return {key: REQUIRED if key in required else normal(value) for key, value in defaults.items()}


def of_callable(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {
        parameter.name: REQUIRED if parameter.default is parameter.empty else normal(parameter.default)
        for parameter in parameters
        if parameter.name != "self"
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.callable)
def test_arguments_are_those_of_the_command(row: Row) -> None:
    wanted = {name: default for name, default in of_command(row.command).items() if name not in {*row.screen, PATH}}
    got = {name: default for name, default in of_callable(row.get()).items() if name not in row.python}
    assert got == wanted


def test_every_public_function_has_a_row() -> None:
    rows = {row.callable for row in ROWS}
    functions = {name for name in tritpack.__all__ if inspect.isfunction(getattr(tritpack, name))}
    assert functions - {"pack", "unpack"} <= rows  # these two have no command


def test_names_are_lazy_and_typed() -> None:
    source = (REPOSITORY / "tritpack" / "__init__.py").read_text("utf-8")
    typed = {
        alias.asname: node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tritpack.")
        for alias in node.names
    }
    assert typed.pop("__version__") == "tritpack.converter.version"
    assert typed == tritpack._DEFINED_IN
    assert sorted(tritpack.__all__) == sorted([*typed, "__version__"]) and set(tritpack.__all__) <= set(dir(tritpack))
    assert (REPOSITORY / "tritpack" / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        importlib.import_module("tritpack").nothing  # noqa: B018
    program = "import sys, tritpack; print([name for name in sys.modules if name in ('numpy', 'click', 'gguf')])"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_generate_is_the_command(demo_gguf: Path) -> None:
    shown: list[str] = []
    result = tritpack.generate(demo_gguf, "Once upon a time", max_tokens=8, repeat_penalty=1.15, on_text=shown.append)
    options = ("-p", "Once upon a time", "-n", "8", "--repeat-penalty", "1.15", "--json")
    command = json.loads(run("generate", demo_gguf, *options).stdout)
    assert (result.text, result.ids) == (command["text"], command["ids"]) and "".join(shown) == result.text
    assert repr(result).startswith("Generation(") and "\n" not in repr(result) and len(repr(result)) < 120


def test_the_methods_of_a_model(demo_gguf: Path) -> None:
    with tritpack.Model(demo_gguf, threads=1) as model:
        ids = model.tokenize("Once upon a time")
        assert model.detokenize(ids, skip_special=True).strip() == "Once upon a time"
        assert model.tokenize("a", no_special=True) == model.tokenizer.encode("a", add_special=False)
        assert np.array_equal(model.logits(ids), model.logits(prompt="Once upon a time"))
        assert model.generate(tokens=ids, max_tokens=4).ids == model.generate("Once upon a time", max_tokens=4).ids
        vector = model.embed("Once", pooling="mean")
        assert vector.shape == (model.spec.hidden_size,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        for text in (repr(model), repr(model.tokenizer)):
            assert "\n" not in text and len(text) < 200, text
        for call in (model.generate, model.logits, model.embed, model.tokenize):
            with pytest.raises(UsageError, match="give either"):
                call()


def test_chat_renders_the_template(demo_gguf: Path, tmp_path: Path) -> None:
    def template(metadata: dict[str, Any]) -> None:
        metadata["tokenizer.chat_template"] = (
            "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }} {% endfor %}"
        )

    with tritpack.Model(edited_gguf(demo_gguf, tmp_path / "chat.gguf", metadata=template)) as model:
        messages = [{"role": "user", "content": "Once"}]
        ids = model.tokenize(chat=[{"role": "system", "content": "Tell"}, *messages])
        assert ids == model.tokenize("system: Tell user: Once ", no_special=True)
        assert model.chat(messages, system="Tell", max_tokens=3).ids == model.generate(tokens=ids, max_tokens=3).ids


def ternary(rows: int = 256, cols: int = 768, scale: float = 0.5) -> TernaryTensor:
    codes = np.random.default_rng(1).integers(-1, 2, (rows, cols)).astype(np.int8)
    return TernaryTensor.per_tensor(codes, scale)


@pytest.mark.parametrize("layout", [*names.LAYOUTS, *names.CHECKPOINT_LAYOUTS])
def test_pack_and_unpack(layout: str) -> None:
    tensor = ternary()
    stored = tritpack.pack(tensor, layout)
    back = tritpack.unpack(stored, layout, tensor.shape)
    assert stored.dtype == np.uint8 and np.array_equal(back.codes, tensor.codes)
    scale = 1 if layout in names.CHECKPOINT_LAYOUTS else 0.5
    assert back.scales.shape == (1, 1) and back.scales.item() == scale
    assert tritpack.unpack(stored.tobytes(), layout, tensor.shape).codes_sha256() == tensor.codes_sha256()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pack_recovers_floats_and_takes_codes(dtype: type[np.floating]) -> None:
    tensor = ternary()
    want = tritpack.pack(tensor, "i2_s")
    assert np.array_equal(tritpack.pack(tensor.dequantize().astype(dtype), "i2_s"), want)
    assert np.array_equal(tritpack.pack(tensor.codes, "i2_s", scales=0.5), want)


def test_pack_rounds_scales_only_on_request() -> None:
    tensor = ternary(scale=0.1)
    with pytest.raises(Unsupported, match="float16"):
        tritpack.pack(tensor, "tq2_0")
    back = tritpack.unpack(tritpack.pack(tensor, "tq2_0", allow_scale_rounding=True), "tq2_0", tensor.shape)
    assert back.scales.item() == np.float32(np.float16(0.1)) and np.array_equal(back.codes, tensor.codes)
    with pytest.raises(Unsupported, match="too small"):
        tritpack.pack(ternary(scale=1e-9), "tq2_0", allow_scale_rounding=True)


@pytest.mark.parametrize(
    ("array", "options", "error", "words"),
    [
        (np.random.default_rng(0).normal(size=(32, 256)).astype(np.float32), {}, Unsupported, "array is not ternary"),
        (np.full((32, 256), np.nan, np.float32), {}, Unreadable, "not finite"),
        (np.full((32, 256), 0.1), {}, Unsupported, "not exact in float32"),
        (np.ones((32, 256), np.int32), {}, UsageError, "neither int8 codes nor floats"),
        (np.ones((32, 256), np.int8), {}, UsageError, "scales="),
        (np.full((32, 256), 2, np.int8), {"scales": 1.0}, UsageError, "other values"),
        (np.ones((32, 256), np.int8), {"scales": np.ones((3, 1))}, UsageError, "do not tile"),
        (np.ones(256, np.float32), {}, UsageError, "not a matrix"),
        (np.ones((32, 100), np.float32), {}, Unsupported, "i2_s"),
    ],
    ids=["floats", "nan", "float64", "int32", "no_scales", "codes", "tiles", "vector", "shape"],
)
def test_what_pack_refuses(
    array: np.ndarray[Any, Any], options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        tritpack.pack(array, "i2_s", **options)


def test_an_unknown_layout_is_named() -> None:
    for call in (lambda: tritpack.pack(ternary(), "i3_s"), lambda: tritpack.unpack(b"", "i3_s", (32, 128))):
        with pytest.raises(UsageError, match="'i3_s' is unknown"):
            call()


def test_results_are_shown_in_one_line(demo_gguf: Path, tmp_path: Path) -> None:
    results = (
        tritpack.convert(demo_gguf, tmp_path / "m.gguf"),
        tritpack.export(demo_gguf, tmp_path / "checkpoint"),
        report := tritpack.verify(tmp_path / "m.gguf", demo_gguf, level="structure"),
        report["structure"],
        TernaryTensor.per_tensor(np.zeros((4, 8), np.int8), 1.0),
    )
    for result in results:
        kind = type(result).__name__
        assert repr(result).startswith(f"{kind}(") and "\n" not in repr(result) and len(repr(result)) < 300, kind
