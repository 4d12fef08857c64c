/** The engine of the folder that `tritpack web` writes: the model runs in a worker of this page. http_engine.js of the page says
 * what an engine is. */
import { Tritpack } from "./tritpack/tritpack.js";

const ASKED = "tritpack asked for isolation";
const PATIENCE = 10_000; // milliseconds for the service worker to start

export class LocalEngine {
  #model = null;
  last = null;

  async start(onProgress) {
    await isolate(onProgress);
    const asked = Number(new URLSearchParams(location.search).get("threads")) || undefined;
    this.#model = await Tritpack.load(new URL("model.json", document.baseURI), { threads: asked, onProgress });
    navigator.storage?.persist?.().catch(() => {});
  }

  info() {
    const { name, file, context, chat, sampling, threads, why, memory, kvType, kernels } = this.#model.info;
    return {
      name, chat, context, file,
      where: "It runs on this device, in this page. What you write stays here.",
      defaults: sampling,
      running: { threads, why, memory, kv_type: kvType, kernels },
      canProve: true,
    };
  }

  async *generate(messages, options) {
    const input = this.#model.info.chat ? messages : messages.map((message) => message.content).join("");
    this.last = { tokens: 0, tokensPerSecond: 0, promptTokens: null, stopReason: "stopped" };
    this.last = yield* this.#model.generate(input, options);
    await this.#model.refresh();
  }

  stop() {
    this.#model?.stop();
  }

  async prove() {
    const { expected, found, tokenized } = await this.#model.prove();
    await this.#model.refresh();
    const rows = [
      ["Prompt", expected.text, expected.text],
      ["Tokens of the prompt", expected.prompt.join(" "), tokenized.join(" ")],
      ["Tokens after it", expected.greedy.join(" "), found.greedy.join(" ")],
      ["Hash of the logits", expected.sha256, found.sha256],
    ];
    return { same: rows.every(([, one, other]) => one === other), rows };
  }
}

/** Lets the service worker give this page the headers that threads need, where the host does not. It also keeps the page for
 * times without a network. Without it the page works with one thread. */
async function isolate(onProgress) {
  if (!navigator.serviceWorker) return;
  onProgress({ done: 0, total: 0, text: "Starting" });
  const registered = navigator.serviceWorker.register("sw.js").catch(() => null);
  if (crossOriginIsolated) {
    remember((storage) => storage.removeItem(ASKED));
    return;
  }
  if (remember((storage) => storage.getItem(ASKED)) || !(await registered)) return; // it was tried: some browsers never isolate a page
  const late = new Promise((resolve) => setTimeout(resolve, PATIENCE));
  const worker = (await registered).installing;
  const redundant = new Promise((resolve) => worker?.addEventListener("statechange", () => worker.state === "redundant" && resolve()));
  if (!(await Promise.race([navigator.serviceWorker.ready, late, redundant]))) return;
  remember((storage) => storage.setItem(ASKED, "1"));
  if (!remember((storage) => storage.getItem(ASKED))) return; // it would reload for ever
  location.reload();
  await new Promise(() => {});
}

/** What the storage of this tab answers; null where site data are blocked. */
function remember(act) {
  try {
    return act(sessionStorage);
  } catch {
    return null;
  }
}
