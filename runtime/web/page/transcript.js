/** The conversation on the screen: each message with what can be done with it. */
import { show } from "./markdown.js";
import { plural, speed } from "./words.js";

const WHY = { length: "stopped at the limit of tokens", context: "the context is full", stopped: "stopped" };

function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export class Transcript {
  #list;
  #on;

  /** on: {retry(place), edit(place, text)}, place being the index of the message from which on all is dropped. */
  constructor(list, on) {
    this.#list = list;
    this.#on = on;
  }

  show(messages) {
    this.#list.replaceChildren(...messages.map((message, place) => this.#item(place, message)));
    this.#list.lastElementChild?.scrollIntoView({ block: "end" });
  }

  /** An answer that is being written: write(text) shows all of it so far, end() its actions. */
  begin(place, message) {
    const item = this.#item(place, message, true);
    const body = item.querySelector(".body");
    this.#list.append(item);
    const follow = () => this.#atEnd() && scrollTo({ top: document.documentElement.scrollHeight });
    scrollTo({ top: document.documentElement.scrollHeight });
    let waiting = false;
    return {
      write: () => {
        if (waiting) return;
        waiting = true;
        requestAnimationFrame(() => { // as often as it can be seen
          waiting = false;
          if (!item.isConnected) return;
          const following = this.#atEnd();
          show(body, message.content);
          if (following) follow();
        });
      },
      end: () => {
        const following = this.#atEnd();
        const done = this.#item(place, message);
        item.replaceWith(done);
        if (following) scrollTo({ top: document.documentElement.scrollHeight });
      },
    };
  }

  #atEnd() {
    const root = document.documentElement;
    return root.scrollHeight - root.scrollTop - root.clientHeight < 120;
  }

  #item(place, message, busy = false) {
    const user = message.role === "user";
    const item = make("li", { className: `message ${user ? "user" : "assistant"}${busy ? " busy" : ""}` });
    const body = make("div", { className: "body" });
    if (user) body.textContent = message.content;
    else show(body, message.content);
    item.append(make("span", { className: "hidden", textContent: user ? "You wrote:" : "The model wrote:" }), body);
    if (busy) return item;
    if (message.failed) item.append(make("p", { className: "failed", textContent: message.failed }));
    const actions = make("div", { className: "actions" });
    if (user) actions.append(this.#button("Edit", () => this.#edit(item, place, message)));
    else actions.append(this.#button("Retry", () => this.#on.retry(place)), this.#copyButton(message.content));
    if (!user && message.tokens !== undefined) actions.append(this.#stats(message));
    item.append(actions);
    return item;
  }

  #stats({ tokens, tokensPerSecond, stopReason, seed }) {
    const parts = [plural(tokens, "token"), tokensPerSecond && `${speed(tokensPerSecond)} tokens/s`, seed !== null && seed !== undefined && `seed ${seed}`, WHY[stopReason]];
    return make("span", { className: "stats", textContent: parts.filter(Boolean).join(" · ") });
  }

  #button(text, click) {
    const button = make("button", { type: "button", textContent: text });
    button.addEventListener("click", click);
    return button;
  }

  #copyButton(text) {
    const button = this.#button("Copy", async () => {
      await navigator.clipboard.writeText(text).then(() => { button.textContent = "Copied"; }, () => { button.textContent = "Not allowed"; });
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    return button;
  }

  #edit(item, place, message) {
    const field = make("textarea", { value: message.content, rows: Math.min(8, message.content.split("\n").length + 1) });
    field.setAttribute("aria-label", "Edit your message");
    const cancel = () => {
      const shown = this.#item(place, message);
      form.closest("li").replaceWith(shown);
      shown.querySelector("button").focus();
    };
    const form = make("form", { className: "edit" }, field,
      make("div", { className: "end" }, this.#button("Cancel", cancel), make("button", { type: "submit", className: "main", textContent: "Send again" })));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (field.value.trim()) this.#on.edit(place, field.value);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") cancel();
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    item.replaceChildren(form);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
}
