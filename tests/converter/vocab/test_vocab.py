"""converter/vocab: what is taken from which file, and what is refused. The families: test_tokenizer_families.py."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import SHARED
from tests.make.texts import awkward_texts
from tests.make.tokenizers import CHATML, CORPUS, train_sentencepiece, write_tokenizer
from tritpack.converter.vocab import read_vocabulary
from tritpack.converter.vocab.pre_name import pre_name_warning
from tritpack.converter.vocab.probes import texts_that_show_cuts
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.runtime import tokenizer as reader
from tritpack.runtime.named_splits import PRE_TOKENIZERS, PUBLISHED
from tritpack.runtime.tokenizer import Tokenizer

tokenizers = pytest.importorskip("tokenizers")
CHECKPOINTS = SHARED / "checkpoints"


@functools.cache
def _document(kind: str) -> str:
    with TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), kind)
        return (Path(folder) / "tokenizer.json").read_text(encoding="utf-8")


def byte_level(kind: str) -> Any:
    """A family's tokenizer; "unknown" cuts as none does and has added tokens of every sort."""
    document = json.loads(_document("llama3" if kind == "unknown" else kind))
    if kind == "unknown":
        document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+|\p{N}{2}|."
    made = tokenizers.Tokenizer.from_str(json.dumps(document))
    if kind == "unknown":
        made.add_special_tokens([tokenizers.AddedToken("<|mask|>", lstrip=True)])
        made.add_tokens([tokenizers.AddedToken("word", single_word=True, normalized=True)])
    return made


def checkpoint(folder: Path, made: Any, **settings: Any) -> Path:
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def same_everywhere(ours: Tokenizer, theirs: Any) -> None:
    for text in awkward_texts():
        assert ours.encode(text) == theirs.encode(text).ids, repr(text)
        ids = ours.encode(text, add_special=False)
        assert ids == theirs.encode(text, add_special_tokens=False).ids, repr(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), repr(text)


def test_a_tokenizer_of_no_known_kind_comes_back_exactly(tmp_path: Path) -> None:
    made = byte_level("unknown")
    metadata = read_vocabulary(checkpoint(tmp_path, made), {"vocab_size": 448}, {})
    assert (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]) == ("gpt2", "default")
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == 448 and types.dtype.name == "int32"
    assert tokens[447] == "[PAD447]" and types[447] == 5
    assert all(isinstance(merge, str) and merge.count(" ") == 1 for merge in metadata["tokenizer.ggml.merges"])
    same_everywhere(Tokenizer.from_metadata(metadata), made)


def test_pre_is_found_by_behaviour_not_by_spelling(tmp_path: Path) -> None:
    made = byte_level("llama3")
    document = json.loads(made.to_str())
    split = document["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    split["Regex"] = split["Regex"].replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)")
    made = tokenizers.Tokenizer.from_str(json.dumps(document))
    metadata = read_vocabulary(checkpoint(tmp_path, made), {}, {})
    assert metadata["tokenizer.ggml.pre"] == "llama-bpe" and "[sdmt]" in metadata[reader.KEY_PIPELINE]
    document["model"]["ignore_merges"] = False
    made = tokenizers.Tokenizer.from_str(json.dumps(document))
    assert read_vocabulary(checkpoint(tmp_path, made), {}, {})["tokenizer.ggml.pre"] == "smaug-bpe"


def cutting(pre_tokenizer: dict[str, Any]) -> Any:
    """A byte-level tokenizer with this pre-tokenizer and many merges."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(texts_that_show_cuts(), trainer)
    document = {**json.loads(made.to_str()), "pre_tokenizer": pre_tokenizer}
    return tokenizers.Tokenizer.from_str(json.dumps(document))


@pytest.mark.parametrize("name", [name for name in PRE_TOKENIZERS if name not in ("llama-bpe", "default")])
def test_every_name_is_found_by_its_cuts(tmp_path: Path, name: str) -> None:
    metadata = read_vocabulary(checkpoint(tmp_path, cutting(PRE_TOKENIZERS[name])), {}, {})
    assert metadata["tokenizer.ggml.pre"] == name and pre_name_warning(metadata) is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_tokenizer_that_llamacpp_approximates(tmp_path: Path, name: str) -> None:
    """The name is right although llama.cpp gives other ids, and the warning says how often."""
    metadata = read_vocabulary(checkpoint(tmp_path, cutting(PUBLISHED[name])), {}, {})
    assert metadata["tokenizer.ggml.pre"] == name
    assert f"{name!r} was made for this tokenizer" in str(pre_name_warning(metadata))


def test_a_tokenizer_that_cuts_as_no_name_does_gets_a_warning(tmp_path: Path) -> None:
    metadata = read_vocabulary(checkpoint(tmp_path, byte_level("unknown")), {}, {})
    warning = str(pre_name_warning(metadata))
    assert warning.startswith(f"none of the {len(PRE_TOKENIZERS)} ways of cutting text")
    assert "other token ids" in warning


def test_ids_of_special_tokens_and_stops(tmp_path: Path) -> None:
    made = byte_level("qwen2")
    folder = checkpoint(tmp_path, made, bos_token=None, eos_token={"content": "<|endoftext|>"}, chat_template=CHATML)
    end, turn = made.token_to_id("<|endoftext|>"), made.token_to_id("<|im_end|>")
    metadata = read_vocabulary(folder, {"bos_token_id": 7, "eos_token_id": 9, "vocab_size": 400}, {"eos_token_id": [3]})
    assert "tokenizer.ggml.bos_token_id" not in metadata  # the tokenizer says there is none, config's is noise
    assert metadata["tokenizer.ggml.eos_token_id"] == end and metadata["tokenizer.ggml.eot_token_id"] == turn
    assert metadata[reader.KEY_STOP_IDS].tolist() == [3, 9, end, turn]
    assert metadata["tokenizer.ggml.add_bos_token"] is False and metadata["tokenizer.ggml.add_eos_token"] is False
    types = metadata["tokenizer.ggml.token_type"]
    assert types[turn] == 3 and types[made.token_to_id("<think>")] == 4
    ours = Tokenizer.from_metadata(metadata)
    assert ours.stop_ids == {3, 9, end, turn} and ours.bos_id is None
    assert Tokenizer.from_metadata(read_vocabulary(folder, {}, {})).stop_ids == {end, turn}


def test_a_post_processor_that_appends_eos(tmp_path: Path) -> None:
    made = byte_level("qwen2")
    end = made.token_to_id("<|endoftext|>")
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
    )
    metadata = read_vocabulary(checkpoint(tmp_path, made, eos_token="<|endoftext|>"), {}, {})
    assert metadata["tokenizer.ggml.add_eos_token"] is True and metadata["tokenizer.ggml.add_bos_token"] is False
    assert metadata[reader.KEY_STOP_IDS].tolist() == [end]  # nobody names a stop token: the tokenizer's eos it is
    assert Tokenizer.from_metadata(metadata).encode("a")[-1] == end


def test_chat_templates_verbatim_from_wherever_they_are(tmp_path: Path) -> None:
    made = byte_level("qwen2")
    odd = CHATML + "\r\n{# é #}\n\n"
    checkpoint(tmp_path, made, chat_template=CHATML)
    assert read_vocabulary(tmp_path, {}, {})["tokenizer.chat_template"] == CHATML
    named = [{"name": "default", "template": odd}, {"name": "tool_use", "template": "T"}]
    metadata = read_vocabulary(checkpoint(tmp_path, made, chat_template=named), {}, {})
    assert metadata["tokenizer.chat_template"] == odd and metadata["tokenizer.chat_template.tool_use"] == "T"
    assert metadata["tokenizer.chat_templates"] == ["tool_use"]
    (tmp_path / "chat_template.jinja").write_bytes(odd.encode())
    checkpoint(tmp_path, made, chat_template="not this one")
    assert read_vocabulary(tmp_path, {}, {})["tokenizer.chat_template"] == odd
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(Unreadable, match="chat_template"):
        read_vocabulary(tmp_path, {}, {})


def test_a_template_that_cannot_render_falls_back_to_known_names(tmp_path: Path) -> None:
    made = byte_level("qwen2")
    folder = checkpoint(tmp_path, made, chat_template="{{ raise_exception('no') }}<|im_end|>")
    assert read_vocabulary(folder, {}, {})["tokenizer.ggml.eot_token_id"] == made.token_to_id("<|im_end|>")
    folder = checkpoint(tmp_path, made, chat_template="{{ messages[1].content }}\nplain <|im_end|>")
    assert "tokenizer.ggml.eot_token_id" not in read_vocabulary(folder, {}, {})


def test_tokens_that_only_the_files_beside_know(tmp_path: Path) -> None:
    made = byte_level("llama3")
    count = made.get_vocab_size()
    folder = checkpoint(tmp_path, made)
    (folder / "added_tokens.json").write_text(json.dumps({"<y>": count}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<z>"}))
    metadata = read_vocabulary(folder, {}, {})
    assert metadata["tokenizer.ggml.tokens"][count:] == ["<y>", "<z>"]
    assert metadata["tokenizer.ggml.padding_token_id"] == count + 1
    (folder / "added_tokens.json").write_text(json.dumps({"<y>": count + 5}))
    with pytest.raises(Unreadable, match="<y>"):
        read_vocabulary(folder, {}, {})


def test_older_files_are_ignored_where_added_tokens_decoder_is(tmp_path: Path) -> None:
    made = byte_level("llama3")
    count = made.get_vocab_size()
    folder = checkpoint(tmp_path, made, added_tokens_decoder={str(count): {"content": "<x>", "special": True}})
    (folder / "added_tokens.json").write_text(json.dumps({"<y>": count + 1}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<z>"}))
    metadata = read_vocabulary(folder, {}, {})
    assert metadata["tokenizer.ggml.tokens"][count:] == ["<x>"]
    assert "tokenizer.ggml.padding_token_id" not in metadata
    with pytest.raises(Unsupported, match=r"'<x>' comes from tokenizer_config\.json"):
        read_vocabulary(folder, {"vocab_size": count}, {})


@pytest.mark.parametrize(
    ("flag", "text"), [("lstrip", "a  <|eot|>b"), ("rstrip", "a<|eot|>  b"), ("single_word", "a<|eot|>b")]
)
@pytest.mark.parametrize("wins", [True, False])
def test_flags_in_tokenizer_config_win(tmp_path: Path, flag: str, text: str, wins: bool) -> None:
    made = byte_level("llama3")
    made.add_tokens([tokenizers.AddedToken("<|eot|>", normalized=False, **{flag: not wins})])
    fields = {"content": "<|eot|>", "normalized": False, "special": False, flag: wins}
    folder = checkpoint(tmp_path, made, added_tokens_decoder={str(made.token_to_id("<|eot|>")): fields})
    made.add_tokens([tokenizers.AddedToken("<|eot|>", normalized=False, **{flag: wins})])
    ours = Tokenizer.from_metadata(read_vocabulary(folder, {}, {}))
    assert ours.encode(text, add_special=False) == made.encode(text, add_special_tokens=False).ids


def test_a_trailing_added_token_without_a_row_is_left_out(tmp_path: Path) -> None:
    made = byte_level("llama3")
    count = made.get_vocab_size()
    made.add_special_tokens(["<image_soft_token>"])
    notes: list[str] = []
    metadata = read_vocabulary(checkpoint(tmp_path, made), {"vocab_size": count}, {}, notes)
    assert len(metadata["tokenizer.ggml.tokens"]) == count and "<image_soft_token>" in notes[0]
    assert max(Tokenizer.from_metadata(metadata).encode("a<image_soft_token>b")) < count


def test_both_spellings_of_merges_and_saved_truncation(tmp_path: Path) -> None:
    made = byte_level("llama3")
    made.enable_truncation(4)
    made.enable_padding(length=9)
    expected = read_vocabulary(checkpoint(tmp_path, made), {}, {})
    document = json.loads(made.to_str())
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    again = read_vocabulary(tmp_path, {}, {})
    assert again["tokenizer.ggml.merges"] == expected["tokenizer.ggml.merges"]
    ours = Tokenizer.from_metadata(again)
    assert ours.decode(ours.encode(CORPUS[0], add_special=False)) == CORPUS[0]


@pytest.mark.parametrize(("name", "kind"), [("GPTNeoXTokenizer", "neox"), ("GPT2TokenizerFast", "neox")])
def test_vocab_and_merges_by_their_class(tmp_path: Path, name: str, kind: str) -> None:
    document = json.loads(_document(kind))
    (tmp_path / "vocab.json").write_text(json.dumps(document["model"]["vocab"]))
    merges = "".join(f"{' '.join(pair)}\n" for pair in document["model"]["merges"])
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + merges)
    settings = {"tokenizer_class": name, "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    added = {token["id"]: token for token in document["added_tokens"]}
    settings["added_tokens_decoder"] = {i: {k: v for k, v in token.items() if k != "id"} for i, token in added.items()}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = Tokenizer.from_metadata(read_vocabulary(tmp_path, {}, {}))
    document["normalizer"] = None if name.startswith("GPT2") else document["normalizer"]
    same_everywhere(ours, tokenizers.Tokenizer.from_str(json.dumps(document)))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "add_bos_token": True}))
    assert Tokenizer.from_metadata(read_vocabulary(tmp_path, {}, {})).encode("a")[0] == 0
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "OddTokenizer"}))
    with pytest.raises(Unsupported, match="OddTokenizer"):
        read_vocabulary(tmp_path, {}, {})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "add_prefix_space": True}))
    assert Tokenizer.from_metadata(read_vocabulary(tmp_path, {}, {})).decode(ours.encode("a")) == "a"
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(Unreadable, match=r"merges\.txt"):
        read_vocabulary(tmp_path, {}, {})


def _word_level(folder: Path) -> None:
    tokenizers.Tokenizer(tokenizers.models.WordPiece()).save(str(folder / "tokenizer.json"))


def _nothing(folder: Path) -> None:
    pass


def _no_sentencepiece(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"x")


def _half_a_sentencepiece(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(train_sentencepiece(384)[:2000])


def _vocab_txt(folder: Path) -> None:
    (folder / "vocab.txt").write_text("[PAD]")


def _cut_short(folder: Path) -> None:
    text = byte_level("qwen2").to_str()
    (folder / "tokenizer.json").write_text(text[: len(text) // 2])


def _wrong_inside(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": 3, "merges": []}}')


def _bad_settings(folder: Path) -> None:
    checkpoint(folder, byte_level("qwen2"))
    (folder / "tokenizer_config.json").write_text("[1]")


def _too_many(folder: Path) -> None:
    checkpoint(folder, byte_level("qwen2"))


@pytest.mark.parametrize(
    ("prepare", "error", "words"),
    [
        (_nothing, Unreadable, "tokenizer.json"),
        (_no_sentencepiece, Unreadable, "tokenizer.model: is not a sentencepiece model"),
        (_half_a_sentencepiece, Unreadable, "tokenizer.model: is not a sentencepiece model"),
        (_vocab_txt, Unsupported, r"vocab\.txt.*WordPiece"),
        (_cut_short, Unreadable, "tokenizer.json"),
        (_wrong_inside, Unreadable, "tokenizer.json"),
        (_word_level, Unsupported, "WordPiece"),
        (_bad_settings, Unreadable, "tokenizer_config.json"),
        (_too_many, Unsupported, "vocabulary of 300"),
    ],
)
def test_bad_folders_get_a_sentence(tmp_path: Path, prepare: Callable[[Path], None], error: type, words: str) -> None:
    prepare(tmp_path)
    with pytest.raises(error, match=words):
        read_vocabulary(tmp_path, {"vocab_size": 300}, {})


def _fixture_folders() -> list[Any]:
    folders = sorted(path.parent for path in CHECKPOINTS.glob("*/fixture.json"))
    missing = pytest.param(None, marks=pytest.mark.skip(reason=f"no checkpoints in {CHECKPOINTS}"))
    refused = pytest.mark.skip(reason="convert refuses this model (hybrid architecture, rotated basis)")
    return [pytest.param(path, id=path.name, marks=() if _is_read(path) else refused) for path in folders] or [missing]


def _is_read(folder: Path) -> bool:
    """Whether config.json is that of a plain text model, and the fixture has the answers of its tokenizer."""
    if not (folder / "config.json").is_file():
        return False
    config, answers = (json.loads((folder / name).read_text()) for name in ("config.json", "fixture.json"))
    return "vocab_size" in config and "roundtrip" in answers


@pytest.mark.parametrize("folder", _fixture_folders())
def test_fixture_checkpoints(folder: Path) -> None:
    """The answers in fixture.json, and transformers' own ids over the awkward texts."""
    config = json.loads((folder / "config.json").read_text())
    generation = folder / "generation_config.json"
    metadata = read_vocabulary(folder, config, json.loads(generation.read_text()) if generation.is_file() else {})
    ours, answers = Tokenizer.from_metadata(metadata), json.loads((folder / "fixture.json").read_text())
    assert ours.vocab_size == config["vocab_size"]
    assert ours.encode(answers["prompt"]) == answers["prompt_ids"]
    assert ours.encode(answers["prompt"], add_special=False) == answers["prompt_ids_without_specials"]
    assert ours.decode(answers["prompt_ids"], skip_special=True) == answers["roundtrip"]
    same_everywhere(ours, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")))
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    for text in awkward_texts():
        assert ours.encode(text) == theirs(text)["input_ids"], repr(text)
    assert (ours.bos_token, ours.eos_token) == (theirs.bos_token, theirs.eos_token)


def test_the_2b4t_fixture_by_its_keys() -> None:
    folder = CHECKPOINTS / "ms_2b4t_packed"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    config, generation = (json.loads((folder / n).read_text()) for n in ("config.json", "generation_config.json"))
    metadata = read_vocabulary(folder, config, generation)
    assert metadata["tokenizer.ggml.pre"] == "llama-bpe" and metadata["tokenizer.ggml.add_bos_token"] is True
    assert metadata["tokenizer.ggml.bos_token_id"] == 352 and metadata["tokenizer.ggml.eos_token_id"] == 353
    assert metadata["tokenizer.ggml.eot_token_id"] == 361 and metadata[reader.KEY_STOP_IDS].tolist() == [353, 361]
