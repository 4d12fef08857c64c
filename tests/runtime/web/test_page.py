"""What the page sends of a chat, and how it shows an answer. It runs in node, with a document made of plain objects."""

from __future__ import annotations

from pathlib import Path

from tests.make.web_page import READ_INPUT, WEB, run_node

REQUESTS = """
globalThis.location = { pathname: "/" };
globalThis.localStorage = { getItem: () => null, setItem: () => {} };
const { Conversation } = await import(given.web + "/page/conversation.js");
console.log(JSON.stringify(given.chats.map(([chat, messages]) => {
  const conversation = new Conversation("a");
  conversation.messages = messages.map(([role, content]) => ({ role, content }));
  conversation.system = "Be short.";
  return conversation.request(chat).map(({ role, content }) => [role, content]);
})));
"""
SHOWN = """
const markup = ({ name, children }) => `<${name}>${flat(children)}</${name}>`;
const flat = (parts) => parts.map((part) => (typeof part === "string" ? part : markup(part))).join("");
globalThis.document = {
  createElement: (name) => ({ name, children: [], append(...more) { this.children.push(...more); } }),
};
const { show } = await import(given.web + "/page/markdown.js");
console.log(JSON.stringify(given.texts.map((text) => {
  let shown = "";
  show({ replaceChildren(...blocks) { shown = flat(blocks); } }, text);
  return shown;
})));
"""


def test_a_question_without_an_answer_is_not_sent_again(tmp_path: Path) -> None:
    stopped = [["user", "a"], ["assistant", "b"], ["user", "c"], ["assistant", ""], ["user", "d"]]
    twice = [["user", "a"], ["assistant", ""], ["user", "c"], ["assistant", ""], ["user", "d"]]
    chats = [[True, stopped], [True, twice], [False, stopped]]
    found = run_node(READ_INPUT + REQUESTS, tmp_path, {"web": str(WEB), "chats": chats})
    system = ["system", "Be short."]
    assert found[0] == [system, ["user", "a"], ["assistant", "b"], ["user", "d"]]
    assert found[1] == [system, ["user", "d"]]
    assert found[2] == [["user", "a"], ["assistant", "b"], ["user", "c"], ["user", "d"]], "the text goes on"


def test_nothing_that_a_model_writes_vanishes(tmp_path: Path) -> None:
    expected = {
        "one\n\n```python\nprint(1)\n\nprint(2)\n```\ntwo": (
            "<p>one</p><pre><code>print(1)\n\nprint(2)</code></pre><p>two</p>"
        ),
        "```\na\n``` and more\nb\n```": "<pre><code>a\n``` and more\nb</code></pre>",
        "```foo``` bar": "<p><code>foo</code> bar</p>",
        "```print(1)": "<pre><code>print(1)</code></pre>",
        "```print(1)\nx\n``` \nend": "<pre><code>print(1)\nx</code></pre><p>end</p>",
        "````\n```\na\n```\n````": "<pre><code>```\na\n```</code></pre>",
        "a `b` **c**\n``` not closed": "<p>a <code>b</code> <strong>c</strong></p><pre><code> not closed</code></pre>",
        "```foo": "<pre><code>foo</code></pre>",
        "- a\n- b\n\n2. c": "<ul><li>a</li><li>b</li></ul><ol><li>c</li></ol>",
    }
    found = run_node(READ_INPUT + SHOWN, tmp_path, {"web": str(WEB), "texts": list(expected)})
    for text, shown in zip(expected, found, strict=True):
        assert shown == expected[text], text
