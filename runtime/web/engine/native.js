/** The C library as WebAssembly: its memory, one model and one session. The structs are those of runtime/csrc/include/tritpack.h
 * on a machine with pointers of 4 bytes; runtime/dump.py describes their form in a model's manifest. */
const PAGE = 65536, ALIGNMENT = 64;
const TENSOR_BYTES = 56, TENSORS_OF_A_LAYER = 31, LAYER_BYTES = TENSORS_OF_A_LAYER * TENSOR_BYTES + 8;
const LOGITS = { last: 1, all: 2 };
export const BATCH = 72; // tokens worked on at once: six tiles of 12
export const THREAD_STACK = 1 << 18;
const KV_TYPES = ["f32", "i16"];
const LARGEST = 65535 * PAGE;

/** Functions of WASI, which only printf would call. */
export function imports(module, memory) {
  const made = { env: { memory } };
  for (const { module: name, name: field, kind } of WebAssembly.Module.imports(module)) {
    if (kind === "function") (made[name] ??= {})[field] = () => 52; // ENOSYS
  }
  return made;
}

/** Memory of a fixed size. Throws an Error with a sentence if this machine does not give that much. */
function reserve(bytes, shared) {
  const pages = Math.ceil(bytes / PAGE), needed = `The model needs ${(bytes / 1e9).toFixed(2)} GB of memory`;
  if (bytes > LARGEST) throw new Error(`${needed}, and WebAssembly can have 4.29 GB at most.`);
  try {
    // What an estimate has missed may be added; a shared memory has to say how much that could be.
    return new WebAssembly.Memory({ initial: pages, ...(shared ? { shared, maximum: Math.min(pages + 1024, 65536) } : {}) });
  } catch {
    throw new Error(`${needed}, and this browser does not give a page that much. Nothing was downloaded.`);
  }
}

/** Memory for the model and for as many of the threads as it has room for: {memory, threads, why}, why as given or why not more. */
export function reserveFor({ memory: alone, memory_per_thread: each }, { threads, why }) {
  for (let count = threads; ; count -= 1) {
    try {
      const memory = reserve(alone + (count - 1) * each, count > 1);
      return { memory, threads: count, why: count < threads ? "the memory of a page has no room for more" : why };
    } catch (error) {
      if (count === 1) throw error;
    }
  }
}

export class Native {
  #exports;
  #session = 0;
  #logits = 0;
  #tokens = 0;
  #left = 0;
  #vocab = 0;

  constructor(module, memory) {
    this.memory = memory;
    const instance = new WebAssembly.Instance(module, imports(module, memory));
    this.#exports = instance.exports;
    this.#exports._initialize();
  }

  get abi() {
    return this.#exports.tp_abi_version();
  }

  get threaded() {
    return "tp_pool_work" in this.#exports;
  }

  /** Takes bytes of the memory, aligned to 64. */
  take(bytes) {
    const at = this.#exports.aligned_alloc(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT) >>> 0;
    if (!at) throw new Error("The model and its context do not fit into the memory that was reserved for them.");
    return at;
  }

  bytes(at, count) {
    return new Uint8Array(this.memory.buffer, at, count);
  }

  /** Makes the model whose image lies at `image`, and a session of it. structs: the manifest's, as bytes. */
  open(structs, image, { context, kvType, threads }) {
    const hparams = this.#copy(structs.hparams, 12), [inv, sliding] = structs.frequencies.map((data) => this.#copy(data));
    const view = new DataView(this.memory.buffer);
    view.setUint32(hparams + structs.hparams.length, inv, true);
    view.setUint32(hparams + structs.hparams.length + 4, sliding ?? 0, true); // the third pointer, of signs, stays 0
    this.#vocab = view.getInt32(hparams, true);
    this.layerCount = structs.layers.length / LAYER_BYTES;
    const layers = this.#copy(structs.layers), ends = this.#copy(structs.ends);
    for (let at = layers; at < layers + structs.layers.length; at += LAYER_BYTES)
      for (let i = 0; i < TENSORS_OF_A_LAYER; i += 1) place(view, at + i * TENSOR_BYTES, image);
    for (let i = 0; i < 3; i += 1) place(view, ends + i * TENSOR_BYTES, image);
    const [embedding, norm, output] = [0, 1, 2].map((i) => ends + i * TENSOR_BYTES);
    const model = this.#made(this.#exports.tp_model_new, hparams, layers, embedding, norm, output);
    const params = this.#copy(new Uint8Array(new Int32Array([context, threads, this.#exports.tp_best_isa(), KV_TYPES.indexOf(kvType), BATCH]).buffer), 64);
    this.#session = this.#made(this.#exports.tp_session_new, model, params);
    this.#tokens = this.take(4 * BATCH);
    this.#logits = this.take(4 * this.#vocab);
    this.#left = this.take(4);
  }

  /** Appends at most BATCH tokens. logits: "none", "last" or "all"; gives Float32Array (vocab), or (tokens, vocab), of its own. */
  eval(tokens, logits = "last") {
    new Int32Array(this.memory.buffer, this.#tokens, BATCH).set(tokens);
    const all = logits === "all", out = all ? this.take(4 * this.#vocab * tokens.length) : this.#logits;
    this.#check(this.#exports.tp_eval(this.#session, this.#tokens, BigInt(tokens.length), LOGITS[logits] ?? 0, out));
    const found = logits === "none" ? null : new Float32Array(this.memory.buffer, out, this.#vocab * (all ? tokens.length : 1)).slice();
    if (all) this.#exports.free(out);
    return found;
  }

  /** Appends at most BATCH tokens layer by layer: begin, then layers(count) until none is left. Nothing is appended before that. */
  begin(tokens, logits) {
    new Int32Array(this.memory.buffer, this.#tokens, BATCH).set(tokens);
    this.#check(this.#exports.tp_eval_begin(this.#session, this.#tokens, BigInt(tokens.length), LOGITS[logits] ?? 0));
  }

  /** How many layers are left; after the last one, last() has the logits of the last token, if they were asked for. */
  layers(count) {
    this.#check(this.#exports.tp_eval_layers(this.#session, count, this.#logits, this.#left));
    return new Int32Array(this.memory.buffer, this.#left, 1)[0];
  }

  last() {
    return new Float32Array(this.memory.buffer, this.#logits, this.#vocab).slice();
  }

  rewind(positions) {
    this.#check(this.#exports.tp_rewind(this.#session, BigInt(positions)));
  }

  /** The symbols of the kernels that have run. */
  kernels() {
    const most = 64, list = this.take(4 * most);
    const count = Math.min(most, this.#exports.tp_session_kernels(this.#session, list, most));
    const symbols = [...new Uint32Array(this.memory.buffer, list, count)].map((at) => this.#text(at));
    this.#exports.free(list);
    return symbols;
  }

  #made(make, ...given) {
    const out = this.take(4);
    this.#check(make(...given, out));
    return new DataView(this.memory.buffer).getUint32(out, true);
  }

  #check(status) {
    if (status === 0) return;
    const where = this.#text(this.#exports.tp_error_place()), what = this.#text(this.#exports.tp_status_text(status));
    throw new Error(`The model cannot run: ${where ? `${where}: ` : ""}${what}.`);
  }

  #copy(data, more = 0) {
    const at = this.take(data.length + more);
    this.bytes(at, data.length + more).fill(0).set(data);
    return at;
  }

  #text(at) {
    const all = this.bytes(at >>> 0, 200);
    return new TextDecoder().decode(all.slice(0, all.indexOf(0)));
  }
}

/** Turns the offset of a tensor in the image, 0 for an absent one, into its address. */
function place(view, at, image) {
  const offset = Number(view.getBigUint64(at, true));
  view.setBigUint64(at, offset ? BigInt(image + offset) : 0n, true);
}
