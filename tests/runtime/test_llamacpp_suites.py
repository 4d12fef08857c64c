"""llama.cpp's own tests of tokenizers and its chat templates, read from the source package of llama-cpp-python.

LLAMA_CPP_SDIST names that package (`pip download --no-binary :all: --no-deps llama-cpp-python`); .ci/run fetches it.
None of its files is copied into this repository.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tritpack.formats.errors import TritpackError, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.chat import render_chat
from tritpack.runtime.named_splits import ALIASES, PRE_TOKENIZERS, RAW_NAMES
from tritpack.runtime.tokenizer import Tokenizer

pytestmark = pytest.mark.slow

MODELS = "vendor/llama.cpp/models/"
OTHER_KINDS = {"bert-bge", "nomic-bert-moe", "gemma-4"}
"""Vocabularies of kinds that tritpack does not read."""
READ_AT_LEAST = {
    "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gpt-2", "llama-bpe", "llama-spm", "mpt", "phi-3", "qwen2",
    "qwen35", "refact", "starcoder",
}  # fmt: skip
CHAT = [
    {"role": "user", "content": "Hello, \u4f60\u597d \U0001f642 <b>"},
    {"role": "assistant", "content": "Hi!\n\n1 + 1 = 2"},
    {"role": "user", "content": "  and again? "},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder `models` of llama.cpp, and the source that has the names of pre-tokenizers."""
    package = os.environ.get("LLAMA_CPP_SDIST", "")
    if not Path(package).is_file():
        pytest.skip("LLAMA_CPP_SDIST does not name the source package of llama-cpp-python")
    folder = tmp_path_factory.mktemp("llama.cpp")
    with tarfile.open(package) as archive:
        for member in archive:
            _, _, name = member.name.partition(MODELS)
            if member.name.endswith("/src/llama-vocab.cpp"):
                name = "llama-vocab.cpp"
            if member.isfile() and name.startswith(("ggml-vocab-", "templates/", "llama-vocab.cpp")):
                source = archive.extractfile(member)
                assert source is not None
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(source.read())
    yield folder


def test_vocabularies_give_the_ids_that_llamacpp_expects(models: Path) -> None:
    read = set()
    for path in sorted(models.glob("ggml-vocab-*.gguf")):
        name = path.stem.removeprefix("ggml-vocab-")
        try:
            tokenizer = Tokenizer.from_metadata(GgufFile(path).metadata)
        except Unsupported:
            assert name not in READ_AT_LEAST, name
            continue
        assert name not in OTHER_KINDS, name
        cases = path.with_name(f"{path.name}.inp")
        if not cases.is_file():  # no test of llama.cpp reads it: it opens
            continue
        texts = cases.read_text("utf-8").split("\n__ggml_vocab_test__\n")
        expected = path.with_name(f"{path.name}.out").read_text("utf-8").split("\n")
        for text, ids in zip(texts, expected):
            assert tokenizer.encode(text, add_special=False) == [int(i) for i in ids.split()], (name, text)
        read.add(name)
    assert read >= READ_AT_LEAST


def test_every_name_of_a_pre_tokenizer_is_known(models: Path) -> None:
    names = set(re.findall(r'tokenizer_pre == "([^"]+)"', (models / "llama-vocab.cpp").read_text("utf-8")))
    assert len(names) >= 91 and names <= {*PRE_TOKENIZERS, *ALIASES, *RAW_NAMES}


def test_templates_render_as_in_transformers(models: Path) -> None:
    """The same text, or a refusal by both: many of these templates demand a system message, tools or a date."""
    reference = pytest.importorskip("transformers.utils.chat_template_utils", reason="needs transformers")
    paths = sorted((models / "templates").glob("*.jinja"))
    assert len(paths) >= 70
    rendered = 0
    for path in paths:
        template = path.read_text("utf-8")
        specials = {"bos_token": "<s>", "eos_token": "</s>"}
        try:
            [expected], _ = reference.render_jinja_template(
                [CHAT], chat_template=template, add_generation_prompt=True, **specials
            )
        except Exception as error:  # jinja2's own, and whatever a template runs into
            expected = error
        try:
            ours = render_chat(template, CHAT, special_tokens=specials)
        except TritpackError as error:
            assert isinstance(expected, Exception), (path.name, error)
            continue
        assert ours == expected, path.name
        rendered += 1
    assert rendered >= 60
