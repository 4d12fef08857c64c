/** The page: it starts the engine, then lets the parts of the page talk to it. */
import { showAbout } from "./about.js";
import { Conversation } from "./conversation.js";
import { Engine } from "./engine.js";
import { Settings } from "./settings.js";
import { Transcript } from "./transcript.js";
import { bytes, count, plural } from "./words.js";

const $ = (id) => document.getElementById(id);
const SUGGESTIONS = {
  chat: ["Tell me a short story about a lighthouse", "Explain what a ternary weight is", "Write a haiku about winter"],
  text: ["Once upon a time", "The little girl", "One day, a dog"],
};

const FORGET_AFTER = 10_000; // milliseconds

const engine = new Engine();
let info, conversation, settings, transcript;
let answering = false, told = "", forgetting = 0;

// -- loading ----------------------------------------------------------------------------------------------------------

async function start(key) {
  document.documentElement.dataset.state = "loading";
  $("loading").hidden = false;
  $("loading").setAttribute("aria-busy", "true");
  $("loading-text").className = "soft";
  for (const id of ["load-again", "key-form"]) $(id).hidden = true;
  $("progress").hidden = false;
  try {
    await engine.start(showProgress, key);
  } catch (error) {
    showFailure(error);
    return;
  }
  info = engine.info();
  document.title = `${info.name} · tritpack chat`;
  $("model-name").textContent = info.name;
  conversation = new Conversation(info.name);
  settings = new Settings($("settings-dialog"), info, conversation);
  transcript = new Transcript($("messages"), { retry, edit });
  transcript.show(conversation.messages);
  $("loading").hidden = true;
  $("composer").hidden = false;
  for (const id of ["new", "about", "settings"]) $(id).disabled = false;
  if (!info.chat) {
    $("question-label").textContent = "Text to continue";
    $("question").placeholder = "Begin a text";
  }
  welcome();
  showStatus();
  say("The model is ready.");
  document.documentElement.dataset.state = "ready";
  $("question").focus({ preventScroll: true });
}

function showProgress({ done, total, text }) {
  if (total) Object.assign($("progress"), { max: total, value: done });
  else $("progress").removeAttribute("value");
  const said = total ? `${text}: ${bytes(done)} of ${bytes(total)}` : text;
  if ($("loading-text").textContent !== said) $("loading-text").textContent = said;
  say(total ? `${text}: ${25 * Math.floor((4 * done) / total)} %` : text);
}

/** Tells a screen reader, once. What was told goes away again, so that a reader does not meet an answer twice. */
function say(text) {
  if (told === text) return;
  told = $("spoken").textContent = text;
  clearTimeout(forgetting);
  forgetting = setTimeout(() => { $("spoken").textContent = ""; }, FORGET_AFTER);
}

function showFailure(error) {
  $("loading").setAttribute("aria-busy", "false");
  $("progress").hidden = true;
  $("loading-title").textContent = error.needsKey ? "Who is asking?" : "The model could not be loaded";
  $("loading-text").textContent = error.needsKey ? "" : error.message;
  $("loading-text").className = "bad";
  $("loading-text").hidden = Boolean(error.needsKey);
  $("key-form").hidden = !error.needsKey;
  $("load-again").hidden = Boolean(error.needsKey);
  say($("loading-title").textContent + (error.needsKey ? "" : `. ${error.message}`));
  document.documentElement.dataset.state = "failed";
  (error.needsKey ? $("key") : $("load-again")).focus();
}

function again(key) {
  $("loading-title").textContent = "Loading the model";
  $("loading-text").hidden = false;
  start(key);
}

$("load-again").addEventListener("click", () => again());
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  again($("key").value);
});

// -- what is around the conversation ----------------------------------------------------------------------------------

function welcome() {
  const fresh = conversation.messages.length === 0;
  $("welcome").hidden = !fresh;
  if (!fresh) return;
  $("welcome-title").textContent = info.chat ? `Talk with ${info.name}` : `Write with ${info.name}`;
  $("welcome-text").textContent = (info.chat ? "" : "This model was not trained for chats: it continues the text that you begin. ") + info.where;
  const buttons = SUGGESTIONS[info.chat ? "chat" : "text"].map((text) => {
    const item = document.createElement("li"), button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: text });
    button.addEventListener("click", () => ask(text));
    item.append(button);
    return item;
  });
  $("suggestions").replaceChildren(...buttons);
}

function showStatus() {
  const { threads, memory } = engine.info().running;
  // The last token of a full context is shown, but has no place in it any more.
  const used = engine.last?.promptTokens ? Math.min(engine.last.promptTokens + engine.last.tokens, info.context ?? Infinity) : 0;
  const parts = [
    threads && plural(threads, "thread"),
    memory && bytes(memory),
    info.context && (used ? `${count(used)} of ${plural(info.context, "token")}` : `context ${plural(info.context, "token")}`),
  ];
  $("status").textContent = parts.filter(Boolean).join(" · ");
}

// -- asking and answering ---------------------------------------------------------------------------------------------

function ask(text) {
  if (answering || !text.trim()) return;
  conversation.messages.push({ role: "user", content: info.chat ? text.trim() : text });
  transcript.show(conversation.messages);
  answer();
}

function retry(place) {
  if (answering) return;
  conversation.messages.length = place;
  transcript.show(conversation.messages);
  answer();
}

function edit(place, text) {
  if (answering) return;
  conversation.messages.length = place;
  ask(text);
}

async function answer() {
  const { max_tokens, ...sampling } = settings.sampling();
  sampling.seed ??= Math.floor(Math.random() * 2 ** 31);
  const message = { role: "assistant", content: "" };
  setAnswering(true);
  welcome();
  const question = conversation.request(info.chat);
  conversation.messages.push(message);
  const bubble = transcript.begin(conversation.messages.length - 1, message);
  try {
    for await (const text of engine.generate(question, { ...sampling, max_tokens: max_tokens ?? null })) {
      message.content += text;
      bubble.write(message.content);
    }
    const { tokens, tokensPerSecond, stopReason } = engine.last;
    Object.assign(message, { tokens, tokensPerSecond, stopReason, seed: sampling.temperature > 0 ? sampling.seed : null });
  } catch (error) {
    message.failed = error.message;
  }
  bubble.end();
  conversation.save();
  setAnswering(false);
  showStatus();
  say(message.failed ?? `${message.content} ${message.stopReason === "stopped" ? "Stopped." : ""}`);
}

function setAnswering(value) {
  answering = value;
  $("send").hidden = value;
  $("stop").hidden = !value;
  $("new").disabled = value;
  $("messages").setAttribute("aria-busy", String(value));
  document.documentElement.dataset.state = value ? "answering" : "ready";
  if (value) say("");
}

function send() {
  if (answering) return;
  const text = $("question").value;
  if (!text.trim()) return;
  $("question").value = "";
  fit();
  ask(text);
}

/** The field grows with its text, where the browser does not do so itself (field-sizing). */
function fit() {
  const field = $("question");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("question").addEventListener("input", fit);
$("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$("stop").addEventListener("click", () => {
  engine.stop();
  $("question").focus({ preventScroll: true });
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && answering && !document.querySelector("dialog[open]")) engine.stop();
});
$("new").addEventListener("click", () => {
  conversation.clear();
  transcript.show([]);
  engine.last = null;
  welcome();
  showStatus();
  $("question").focus();
});
$("settings").addEventListener("click", () => $("settings-dialog").showModal());
$("about").addEventListener("click", () => showAbout($("about-dialog"), engine));

start();
