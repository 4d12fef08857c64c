/** A model that is ready to run, and its generation loop, as runtime/generate.py has it. */
import { Hash } from "./download.js";
import { BATCH } from "./native.js";
import { likeliest, Sampler } from "./sampler.js";
import { Utf8Stream } from "./text.js";

const UNSTOPPED = 30; // milliseconds of layers before the next look for a stop

export class Model {
  #native;
  #cached = []; // the ids in the KV cache
  #pace = Infinity; // milliseconds that a layer takes for a token

  /** pause: gives others a turn, so that a stop can arrive; resolves soon. */
  constructor(native, text, context, pause) {
    this.#native = native;
    this.text = text;
    this.context = context;
    this.pause = pause;
  }

  /** Continues ids. Yields texts; returns {ids, stopReason, ...}. stopped() tells whether it shall end. */
  async *generate(ids, { max_tokens = null, ...params }, stopped) {
    const prompt = ids.length ? ids : this.text.bos === null ? [] : [this.text.bos];
    if (!prompt.length) throw new Error("The text is empty, and this model has no token to begin with.");
    if (prompt.length > this.context) {
      throw new Error(`The conversation has ${prompt.length} tokens, more than the context of ${this.context}. Start a new chat, or shorten it.`);
    }
    const sampler = new Sampler(params), stream = new Utf8Stream(), history = [...prompt];
    const begin = performance.now();
    let pending = prompt, first = 0, stopReason = max_tokens === 0 ? "length" : null;
    while (!stopReason) {
      const logits = await this.#append(pending, stopped);
      if (!logits) {
        stopReason = "stopped";
        break;
      }
      const token = sampler.next(logits, history);
      first ||= performance.now();
      let bytes = new Uint8Array();
      if (this.text.stops.has(token)) stopReason = "eos";
      else {
        history.push(token);
        if (!this.text.control.has(token)) bytes = this.text.bytes(token);
        if (history.length - prompt.length === max_tokens) stopReason = "length";
        else if (history.length > this.context) stopReason = "context"; // it can still be shown, but not fed back
      }
      const text = stream.feed(bytes) + (stopReason ? stream.finish() : "");
      if (text) yield text;
      pending = history;
    }
    const end = performance.now(), written = history.length - prompt.length;
    const evaluated = written - (stopReason === "eos" ? 0 : 1);
    return {
      ids: history.slice(prompt.length),
      stopReason,
      tokens: written,
      promptTokens: prompt.length,
      tokensPerSecond: first && evaluated > 0 ? evaluated / ((end - first) / 1000) : 0,
      promptTokensPerSecond: first ? prompt.length / ((first - begin) / 1000) : 0,
    };
  }

  /** The logits of every position of ids, Float32Array (ids, vocab). */
  logits(ids) {
    this.#rewind(0);
    const found = [];
    for (let at = 0; at < ids.length; at += BATCH) found.push(this.#eval(ids.slice(at, at + BATCH), "all"));
    const all = new Float32Array(found.reduce((sum, part) => sum + part.length, 0));
    found.reduce((at, part) => (all.set(part, at), at + part.length), 0);
    return all;
  }

  /** Runs the golden prompt: greedy tokens, and the SHA-256 of all logits on the way. */
  async prove({ prompt, greedy }) {
    const hash = new Hash(), vocabAll = this.logits(prompt), ids = [];
    const vocab = vocabAll.length / prompt.length, bytes = (floats) => new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
    hash.add(bytes(vocabAll));
    let logits = vocabAll.subarray(vocabAll.length - vocab);
    for (let i = 0; i < greedy.length; i += 1) {
      ids.push(likeliest(logits));
      logits = this.#eval([ids[i]], "last");
      hash.add(bytes(logits));
      await this.pause();
    }
    return { greedy: ids, sha256: hash.hex() };
  }

  kernels() {
    return this.#native.kernels();
  }

  /** Makes the cache hold `ids` and gives the logits of the last; null if it was stopped. What is there already stays. */
  async #append(ids, stopped) {
    let same = 0;
    while (same < Math.min(this.#cached.length, ids.length - 1) && this.#cached[same] === ids[same]) same += 1;
    if (same < this.#cached.length) this.#rewind(same);
    while (this.#cached.length < ids.length) {
      const batch = ids.slice(this.#cached.length, this.#cached.length + BATCH);
      this.#native.begin(batch, this.#cached.length + batch.length === ids.length ? "last" : "none");
      if (!(await this.#layers(batch.length, stopped))) return null;
      this.#cached.push(...batch);
    }
    return this.#native.last();
  }

  /** Runs the layers that were begun with `tokens` tokens; false if it was stopped on the way. */
  async #layers(tokens, stopped) {
    for (let left = this.#native.layerCount; left > 0;) {
      await this.pause();
      if (stopped()) return false;
      const count = Math.min(left, Math.max(1, Math.floor(UNSTOPPED / (this.#pace * tokens)))), begin = performance.now();
      left = this.#native.layers(count);
      this.#pace = (performance.now() - begin) / (count * tokens);
    }
    return true;
  }

  /** Appends ids to the cache, native and noted: one refused batch must not make the two differ. */
  #eval(ids, which) {
    const logits = this.#native.eval(ids, which);
    this.#cached.push(...ids);
    return logits;
  }

  #rewind(positions) {
    this.#native.rewind(positions);
    this.#cached.length = positions;
  }
}

/** A turn for everybody else, without the delay that timers have. */
export function turns() {
  const { port1, port2 } = new MessageChannel();
  let go = null;
  port1.onmessage = () => go?.();
  return () => new Promise((resolve) => {
    go = resolve;
    port2.postMessage(null);
  });
}
