/** Shows an answer: paragraphs, lists, **bold**, `code` and fenced code; everything else stays as it was written. It only makes
 * text nodes, so nothing that a model writes becomes markup. */
export function show(into, text) {
  const blocks = [];
  const parts = text.split(/^ {0,3}```([^\n`]*)\n?/m); // text, language, code, rest of the closing line, text, ...
  for (let i = 0; i < parts.length; i += 2) {
    if (i % 4 === 2) blocks.push(fence(parts[i]));
    else blocks.push(...paragraphs(parts[i]));
  }
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
  return text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).filter(Boolean).map((part) => {
    if (/^`[^`]+`$/.test(part)) return element("code", part.slice(1, -1));
    if (/^\*\*[^*]+\*\*$/.test(part)) return element("strong", part.slice(2, -2));
    return part;
  });
}
