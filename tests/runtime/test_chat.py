"""runtime/chat.py: templates render as in transformers, and cannot reach anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import SHARED
from tests.make.tokenizers import CHATML, GEMMA_CHAT
from tritpack.formats.errors import TritpackError, Unreadable, Unsupported, UsageError
from tritpack.runtime.chat import chat_ids, chat_text, check_messages, parse_messages, render_chat, takes_tools
from tritpack.runtime.tokenizer import BITNET_TEMPLATE, Tokenizer, _byte_of_char

pytest.importorskip("jinja2")
CHECKPOINTS = SHARED / "checkpoints"
CHAT = [
    {"role": "system", "content": "You are a patient keeper."},
    {"role": "user", "content": "How many lanterns are lit?"},
    {"role": "assistant", "content": "Seven."},
    {"role": "user", "content": "Count again, please."},
]
HELLO = [{"role": "user", "content": " Hello <|eot_id|> "}]


def toy(template: str | None) -> Tokenizer:
    """Bytes and three specials: 256 begin, 257 end, 258 end of turn."""
    pytest.importorskip("tokenizers")
    table = _byte_of_char()
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": [*sorted(table, key=table.__getitem__), "<|bos|>", "<|eos|>", "<|eot_id|>"],
        "tokenizer.ggml.token_type": [1] * 256 + [3] * 3,
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 257,
    }
    return Tokenizer.from_metadata(metadata if template is None else {**metadata, "tokenizer.chat_template": template})


def test_an_error_of_a_template_names_its_file() -> None:
    tokenizer = toy("{{ raise_exception('no') }}")
    tokenizer.backend.path = "some.gguf"
    with pytest.raises(Unreadable) as caught:
        chat_text(tokenizer, HELLO)
    assert caught.value.path == "some.gguf"
    with pytest.raises(UsageError) as wrong:  # the messages are the caller's, not the file's
        chat_text(tokenizer, [])
    assert wrong.value.path is None


def render(template: str, messages: Any = HELLO, **more: Any) -> str:
    return render_chat(template, messages, special_tokens={"bos_token": "<s>"}, **more)


@pytest.mark.parametrize("name", ["ms_2b4t_packed", "hf1bit_llama3_8b", "bonsai_unpacked", "falcon_e_bfloat16"])
def test_fixture_chats(name: str) -> None:
    folder = CHECKPOINTS / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    pytest.importorskip("tokenizers")
    from tritpack.converter.vocab import read_vocabulary

    config, generation = (json.loads((folder / n).read_text()) for n in ("config.json", "generation_config.json"))
    tokenizer = Tokenizer.from_metadata(read_vocabulary(folder, config, generation))
    answers = json.loads((folder / "fixture.json").read_text())
    assert chat_text(tokenizer, CHAT) == answers["chat_rendered"]
    assert chat_ids(tokenizer, CHAT) == answers["chat_ids"]


def test_the_template_alone_decides_about_specials() -> None:
    tokenizer = toy(BITNET_TEMPLATE)
    assert chat_text(tokenizer, HELLO) == "<|bos|>User: Hello <|eot_id|><|eot_id|>Assistant: "
    ids = chat_ids(tokenizer, HELLO)
    assert ids[0] == 256 and ids.count(256) == 1 and ids.count(258) == 2
    assert chat_text(tokenizer, HELLO, add_generation_prompt=False).endswith("<|eot_id|>")
    assert chat_ids(toy("{{ messages[0].content | trim }}"), [{"role": "user", "content": "A"}]) == [0x41]


TEMPLATES = [
    BITNET_TEMPLATE, CHATML, GEMMA_CHAT,
    "{% for m in messages %}\n  {% if m.role == 'user' %}\n    U:{{ m.content }}\n  {% endif %}\n{% endfor %}",
    "{%- for m in messages -%}{{ m | tojson }}{%- if loop.first %}{% continue %}{% endif %}!{%- endfor -%}",
    "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m['content']|upper }}{% endfor %}",
    "{% set ns = namespace(found=false) %}{% for m in messages %}{% set ns.found = true %}{% endfor %}{{ ns.found }}",
    "{{ bos_token }}|{{ eos_token }}|{{ tools is none }}|{{ documents }}|{{ undefined_thing }}",
    "{{ {'b': 1, 'a': '<é>'} | tojson(indent=2) }}{{ dict(a=1) }}{{ messages[0].content.strip().split(' ') }}",
    "{% generation %}{{ messages[-1].content }}{% endgeneration %}",
    "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(messages|length) }}{{ messages[::-1][0].role }}{{ 2 * 3 }}",
    "{{ 'ab' * 3 }}{{ [1] * 2 }}{{ 2 ** 8 }}",
    "{{ strftime_now('%Y') | length }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
]  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES)
def test_renders_as_transformers_does(template: str) -> None:
    pytest.importorskip("transformers")
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    theirs = utils.render_jinja_template(
        conversations=[CHAT], chat_template=template, add_generation_prompt=True, bos_token="<s>"
    )
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    assert render(template, CHAT) == (theirs[0] if isinstance(theirs, list) else theirs)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__['__builtins__']['open']('/etc/passwd').read() }}",
        "{{ strftime_now.__globals__ }}{{ cycler.__init__.__globals__.os.system('id') }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ self._TemplateReference__context.environment.from_string('x') }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
        "{% set ns = namespace(_x=1) %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns }}",
        "{% do messages.append(1) %}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{% include '/etc/passwd' %}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ 'a' * 10**12 }}",
        "{{ 10**12 * ['a'] }}",
        "{{ 9 ** 9 ** 9 }}",
    ],
)
def test_the_sandbox_holds(attack: str) -> None:
    try:
        text = render(attack)
    except TritpackError as error:
        assert isinstance(error, Unreadable) and "\n" not in error.message
    else:
        assert not any(word in text for word in ("root:", "uid=", "<class", "built-in", "/etc"))
    assert HELLO == [{"role": "user", "content": " Hello <|eot_id|> "}]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "template"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ messages[0].content + 1 }}", "template"),
        ("{{ messages[9].content }}", "template"),
        ("{% for x in messages %}", "template"),
    ],
)
def test_template_faults_are_one_sentence(template: str, words: str) -> None:
    with pytest.raises(Unreadable, match=words) as caught:
        render(template)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "document",
    ["", "{", "{}", "[]", "[1]", '["a"]', '[{"role": "user"}]', '[{"content": "x"}]', '[{"role": 1, "content": "x"}]',
     '[{"role": "user", "content": null}]', '"text"', "null", "[" * 5000],
)  # fmt: skip
def test_bad_chats_are_usage_errors(document: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_messages(document)
    assert caught.value.hint and "role" in caught.value.hint


def test_good_chats_pass() -> None:
    assert parse_messages(json.dumps(CHAT)) == CHAT and check_messages(CHAT) == CHAT


def test_a_base_model_has_no_chat() -> None:
    with pytest.raises(Unsupported, match="no chat template"):
        chat_ids(toy(None), CHAT)


CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
CALL = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}
TOOL_CHAT = [
    {"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "text", "text": "time?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "12:00"},
]
TOOL_TEMPLATE = (
    "{% for t in tools or [] %}{{ t.function.name }}{{ t | tojson }};{% endfor %}{{ enable_thinking }};"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments.zone }}{% endfor %};{% endfor %}"
)


def test_tools_calls_parts_and_variables_reach_the_template() -> None:
    text = render(TOOL_TEMPLATE, TOOL_CHAT, tools=[CLOCK], variables={"enable_thinking": False})
    tool = json.dumps(CLOCK)
    assert text == f"clock{tool};False;user:What\ntime?;assistant:UTC;tool:12:00;"
    assert chat_text(toy(TOOL_TEMPLATE), HELLO, tools=[CLOCK], variables={}).startswith(f"clock{tool};;user:")
    assert TOOL_CHAT[1]["content"] is None  # the caller's messages stay as they are
    assert takes_tools(TOOL_TEMPLATE) and not takes_tools(CHATML.replace("tools", "toolset"))


@pytest.mark.parametrize(
    ("messages", "options", "words"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], {}, "of type 'image_url'"),
        ([{"role": "user", "content": ["a"]}], {}, "a part that is not text"),
        ([{"role": "assistant", "tool_calls": [1]}], {}, "without the name of a function"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}], {}, "not valid JSON"),
        (HELLO, {"tools": [{"type": "function"}]}, "tool 0 has no function"),
        (HELLO, {"variables": {"messages": []}}, "'messages' cannot be a variable"),
    ],
    ids=["image", "part", "call", "arguments", "tool", "variable"],
)
def test_what_a_template_is_not_given(messages: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        render(TOOL_TEMPLATE, messages, **options)
