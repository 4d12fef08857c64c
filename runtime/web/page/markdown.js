const LANGUAGE = /^\s*[\w+#.-]*\s*$/;

/** Shows an answer: paragraphs, lists, **bold**, `code` and fenced code; everything else stays as it was written. It only makes
 * text nodes, so nothing that a model writes becomes markup. */
export function show(into, text) {
  const blocks = [];
  let lines = [], closing = null, word = ""; // what ends the code that the lines are of, and what stands after its fence
  const end = () => {
    if (closing) blocks.push(fence(lines.length ? lines.join("\n") : word));
    else blocks.push(...paragraphs(lines.join("\n")));
    lines = [];
  };
  for (const line of text.split("\n")) {
    const opening = closing ? null : /^ {0,3}(`{3,})([^`]*)$/.exec(line);
    if (opening) {
      end();
      closing = new RegExp(`^ {0,3}${opening[1]}\`*\\s*$`);
      word = opening[2];
      if (!LANGUAGE.test(word)) lines.push(word); // it is no language, but code that begins at once
    } else if (closing?.test(line)) {
      end();
      closing = null;
    } else lines.push(line);
  }
  end();
  into.replaceChildren(...blocks);
}

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

function fence(code) {
  const block = element("pre", element("code", code.replace(/\n$/, "")));
  block.tabIndex = 0; // it scrolls
  return block;
}

const ITEM = /^\s{0,3}(?:[-*•]|\d{1,3}[.)])\s+/;

function paragraphs(text) {
  return text.split(/\n\s*\n/).filter((part) => part.trim()).map((part) => {
    const lines = part.replace(/^\n+|\s+$/g, "").split("\n");
    if (!lines.every((line) => ITEM.test(line))) return element("p", ...inline(lines.join("\n")));
    const ordered = /^\s*\d/.test(lines[0]);
    const list = element(ordered ? "ol" : "ul", ...lines.map((line) => element("li", ...inline(line.replace(ITEM, "")))));
    if (ordered) list.start = parseInt(lines[0], 10);
    return list;
  });
}

function inline(text) {
  return text.split(/(```[^`\n]+```|`[^`\n]+`|\*\*[^*\n]+\*\*)/).filter(Boolean).map((part) => {
    if (/^`+[^`]+`+$/.test(part)) return element("code", part.replace(/^`+|`+$/g, ""));
    if (/^\*\*[^*]+\*\*$/.test(part)) return element("strong", part.slice(2, -2));
    return part;
  });
}
