/** The dialog "About this file": what the file is, how it runs here, and the proof that both are the model they claim to be. */
import { facts } from "./words.js";

const CODES = new Set(["SHA-256", "Kernels"]);

export function showAbout(dialog, engine) {
  const info = engine.info();
  dialog.querySelector("#facts").replaceChildren(...rows(facts(info)));
  const proof = dialog.querySelector("#proof"), button = dialog.querySelector("#prove"), result = dialog.querySelector("#proof-result");
  proof.hidden = !info.canProve;
  dialog.querySelector("#proof-what").textContent =
    "Runs a prompt here and compares the SHA-256 of all logits, and the tokens, with those of the native library.";
  button.onclick = async () => {
    button.disabled = true;
    result.replaceChildren("Running ...");
    try {
      showResult(result, await engine.prove());
      dialog.querySelector("#facts").replaceChildren(...rows(facts(engine.info()))); // now kernels have run
    } catch (error) {
      result.replaceChildren(paragraph("bad verdict", error.message));
    }
    button.disabled = false;
    result.scrollIntoView({ block: "end" });
  };
  dialog.showModal();
}

function showResult(into, { same, rows: compared }) {
  const words = same
    ? "The same, bit for bit: this browser computes exactly what the native library computes."
    : "Different: this browser does not compute what the native library computes.";
  const list = document.createElement("dl");
  for (const [name, expected, found] of compared) {
    list.append(...rows(expected === found ? [[name, found]] : [[`${name}, native`, expected], [`${name}, here`, found]]));
  }
  into.replaceChildren(paragraph(same ? "verdict" : "bad verdict", words), list);
}

function paragraph(className, text) {
  return Object.assign(document.createElement("p"), { className, textContent: text });
}

function rows(pairs) {
  return pairs.map(([name, value]) => {
    const row = document.createElement("div"), term = document.createElement("dt"), said = document.createElement("dd");
    term.textContent = name;
    if (CODES.has(name) || /^Hash/.test(name)) said.append(Object.assign(document.createElement("code"), { textContent: value }));
    else said.textContent = value;
    row.append(term, said);
    return row;
  });
}
