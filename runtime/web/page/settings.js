/** The dialog of the system prompt and of sampling. What is left empty is the default of the server or of the folder. */
const FIELDS = [
  { name: "temperature", label: "Temperature", about: "0 always takes the likeliest token", min: 0, step: "any" },
  { name: "top_k", label: "Top-k", about: "Only the k likeliest tokens; 0 is off", min: 0, step: 1 },
  { name: "top_p", label: "Top-p", about: "The likeliest tokens that reach p together; 1 is off", min: 0.001, max: 1, step: "any" },
  { name: "min_p", label: "Min-p", about: "Tokens at least this fraction as likely as the likeliest; 0 is off", min: 0, max: 1, step: "any" },
  { name: "repeat_penalty", label: "Repeat penalty", about: "Makes tokens that occurred less likely; 1 is off", min: 0.001, step: "any" },
  { name: "max_tokens", label: "Most tokens of an answer", about: "Empty: until the model ends it", min: 1, step: 1 },
  { name: "seed", label: "Seed", about: "The same seed and text give the same answer; empty: another one each time", min: 0, step: 1 },
];

export class Settings {
  #conversation;
  #defaults;
  #inputs = {};

  constructor(dialog, info, conversation) {
    this.#conversation = conversation;
    this.#defaults = info.defaults;
    const system = dialog.querySelector("#system");
    system.value = conversation.system;
    dialog.querySelector("#system-field").hidden = !info.chat;
    dialog.querySelector("#settings-note").textContent = "Grey values count where nothing is entered. Changes count from the next answer on.";
    dialog.querySelector("#sampling").replaceChildren(...FIELDS.map((field) => this.#field(field)));
    dialog.addEventListener("close", () => {
      conversation.system = system.value;
      conversation.sampling = {};
      for (const { name } of FIELDS) {
        const input = this.#inputs[name];
        if (input.value.trim() !== "" && input.validity.valid) conversation.sampling[name] = Number(input.value);
        else if (!input.validity.valid) input.value = "";
      }
      conversation.save();
    });
    dialog.querySelector("#reset").addEventListener("click", () => {
      system.value = "";
      for (const input of Object.values(this.#inputs)) input.value = "";
    });
  }

  /** Each value as set here or by default; max_tokens and seed may be missing. */
  sampling() {
    return { ...this.#defaults, ...this.#conversation.sampling };
  }

  #field({ name, label, about, min, max, step }) {
    const id = `set-${name}`, box = document.createElement("div");
    const title = Object.assign(document.createElement("label"), { htmlFor: id, textContent: label });
    const input = Object.assign(document.createElement("input"), { id, type: "number", inputMode: "decimal", min, step });
    if (max !== undefined) input.max = max;
    input.placeholder = this.#defaults[name] ?? "";
    input.value = this.#conversation.sampling[name] ?? "";
    const note = Object.assign(document.createElement("small"), { id: `${id}-about`, textContent: about });
    input.setAttribute("aria-describedby", note.id);
    this.#inputs[name] = input;
    box.append(title, input, note);
    return box;
  }
}
