/** tritpack in the browser: a model in a worker. index.d.ts has the types. */

const here = (name) => new URL(name, import.meta.url).href;

export class Tritpack {
  #worker;
  #waiting = new Map();
  #next = 1;
  #generating = new Set(); // ids
  #ended = null; // why nothing can be asked any more

  /** Use Tritpack.load. */
  constructor(worker) {
    this.#worker = worker;
    worker.onmessage = ({ data }) => this.#waiting.get(data.id)?.(data);
    worker.onerror = (event) => this.#end(`The worker failed: ${event.message ?? "it could not be started"}.`);
  }

  static async load(source, { manifest, threads, onProgress = () => {} } = {}) {
    const blob = typeof Blob !== "undefined" && source instanceof Blob ? source : null;
    if (blob && !manifest) throw new Error("A Blob needs the address of its description: load(blob, { manifest: \".../model.json\" }).");
    const url = new URL(blob ? manifest : source, globalThis.document?.baseURI ?? globalThis.location?.href);
    if (!url.pathname.endsWith(".json")) url.pathname = `${url.pathname.replace(/\/$/, "")}/model.json`;
    const model = new Tritpack(new Worker(here("tritpack-worker.js"), { type: "module", name: "tritpack" }));
    const assets = { single: here("tritpack.wasm"), threads: here("tritpack-threads.wasm"), thread: here("tritpack-thread.js") };
    try {
      model.info = await model.#ask({ ask: "load", manifest: url.href, blob, threads, assets }, ({ progress }) => onProgress(progress));
    } catch (error) {
      model.close();
      throw error;
    }
    return model;
  }

  tokenize(input) {
    return this.#ask({ ask: "tokenize", input });
  }

  logits(tokens) {
    return this.#ask({ ask: "logits", tokens });
  }

  prove() {
    return this.#ask({ ask: "prove" });
  }

  async refresh() {
    this.info = await this.#ask({ ask: "info" });
    return this.info;
  }

  /** Yields text; returns the Generation. Leaving the loop early stops it. */
  async *generate(input, options = {}) {
    const texts = [];
    let wake = () => {}, ended = false, failed = null, result = null;
    const id = this.#next;
    this.#generating.add(id);
    this.#ask({ ask: "generate", input, options }, ({ text }) => { texts.push(text); wake(); })
      .then((value) => { result = value; }, (error) => { failed = error; })
      .finally(() => { ended = true; this.#generating.delete(id); wake(); });
    try {
      for (;;) {
        while (texts.length) yield texts.shift();
        if (failed) throw failed;
        if (ended) return result;
        await new Promise((resolve) => { wake = resolve; });
      }
    } finally {
      if (!ended) this.#stop(id);
    }
  }

  stop() {
    for (const id of this.#generating) this.#stop(id);
  }

  close() {
    this.#end("The model was closed.");
  }

  #stop(id) {
    this.#worker.postMessage({ ask: "stop", id });
  }

  #end(why) {
    this.#worker.terminate();
    this.#ended ??= why;
    for (const take of [...this.#waiting.values()]) take({ failed: this.#ended });
  }

  #ask(question, onPart = () => {}) {
    if (this.#ended) return Promise.reject(new Error(this.#ended));
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, (data) => {
        if (data.failed === undefined && !("done" in data)) {
          onPart(data);
          return;
        }
        this.#waiting.delete(id);
        if ("done" in data) resolve(data.done);
        else reject(new Error(data.failed));
      });
      this.#worker.postMessage({ id, ...question });
    });
  }
}
