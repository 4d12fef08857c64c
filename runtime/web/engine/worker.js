/** The worker that holds the model: it answers {id, ask, ...} with {id, done} or {id, failed}, and on the way {id, progress} or
 * {id, text}. {id, ask: "stop"} ends the generation of that id, also one that waits. index.js is what talks to it. */
import { fill, fillFromBlob, forgetOthers, get, getChecked, getModule } from "./download.js";
import { Model, turns } from "./model.js";
import { Native, reserveFor, THREAD_STACK } from "./native.js";
import { Text } from "./text.js";

const SCHEMA = "tritpack.web/1";
const MOST_THREADS = 16;
/** A module of one function that uses SIMD: () -> i8x16.popcnt(i8x16.splat(0)). */
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);
const pause = turns();
const going = new Set(); // ids of what was asked and is neither answered nor stopped
let model = null, running = null;

const bytesOf = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));

async function compile(url, sha256) {
  const bytes = await getModule(url, sha256, "The WebAssembly module");
  try {
    return await WebAssembly.compile(bytes);
  } catch (error) {
    if (!WebAssembly.validate(SIMD)) throw new Error("This browser cannot run the module: it lacks 128-bit SIMD for WebAssembly.");
    throw new Error(`The WebAssembly module (${url}) is damaged: ${error.message}.`);
  }
}

async function readManifest(url) {
  const manifest = await (await get(url, "The description of the model")).json().catch(() => null);
  if (manifest?.schema !== SCHEMA) throw new Error(`${url} does not describe a model: its schema is ${manifest?.schema}, expected ${SCHEMA}.`);
  return manifest;
}

/** Compares the scripts of the page that this worker belongs to with what tritpack web wrote, as the browser has them: they run. */
async function checkScripts(hashes) {
  if (!hashes.has(self.location.href)) return; // the model lies elsewhere, and says nothing of this page
  const scripts = [...hashes].filter(([url]) => url.endsWith(".js"));
  await Promise.all(scripts.map(([url, sha256]) => getModule(url, sha256, "A script of this page", "force-cache")));
}

/** How many threads, and why not more. */
function threadsFor(asked) {
  if (!self.crossOriginIsolated) return { threads: 1, why: "the page is not cross-origin isolated" };
  const cores = navigator.hardwareConcurrency ?? 1;
  return { threads: Math.max(1, Math.min(asked ?? cores, MOST_THREADS)) };
}

function startThreads(module, memory, native, count, url) {
  for (let index = 1; index < count; index += 1) {
    const worker = new Worker(url, { type: "module", name: `tritpack thread ${index}` });
    worker.postMessage({ module, memory, index, stack: native.take(THREAD_STACK) + THREAD_STACK });
  }
}

async function load({ manifest: url, blob, threads: asked, assets }, report) {
  const manifest = await readManifest(url);
  const { memory, threads, why } = reserveFor(manifest, threadsFor(asked));
  const hashes = new Map(Object.entries(manifest.modules ?? {}).map(([path, hash]) => [new URL(path, url).href, hash]));
  await checkScripts(hashes);
  const wasm = assets[threads > 1 ? "threads" : "single"], module = await compile(wasm, hashes.get(wasm));
  const native = new Native(module, memory);
  if (native.abi !== manifest.abi) {
    throw new Error(`The module and the model do not belong together: ABI ${native.abi} and ${manifest.abi}. Write the folder again with tritpack web.`);
  }
  const size = manifest.parts.reduce((sum, part) => sum + part.size, 0), image = native.take(size);
  const target = (offset, count) => native.bytes(image + offset, count);
  const progress = (done) => report({ done, total: size, text: blob ? "Reading" : "Fetching" });
  const settled = blob ? await fillFromBlob(blob, manifest, target, progress) : await fill(manifest.parts, url, target, progress);
  report({ done: 0, total: 0, text: "Getting ready" });
  const { tokenizer, pieces } = manifest.text;
  const document = JSON.parse(new TextDecoder().decode(await getChecked(tokenizer, url, "The tokenizer")));
  const text = new Text(document, await getChecked(pieces, url, "The table of tokens"), manifest.text);
  checkText(text, manifest.text);
  const structs = Object.fromEntries(["hparams", "layers", "ends"].map((name) => [name, bytesOf(manifest.structs[name])]));
  structs.frequencies = manifest.structs.frequencies.map(bytesOf);
  native.open(structs, image, { context: manifest.context, kvType: manifest.kv_type, threads });
  startThreads(module, memory, native, threads, assets.thread);
  model = new Model(native, text, manifest.context, pause);
  model.about = { manifest, threads, why, native, reserved: memory.buffer.byteLength };
  // After a download not before the next visit: until the service worker has kept the page of this model, the older one is what
  // works offline.
  if (settled) await forgetOthers([...manifest.parts, tokenizer, pieces], url);
  return info();
}

/** What was split, merged and rendered in Python has to come out the same here. */
function checkText(text, { probes, chat_probe: chat }) {
  for (const [sample, expected] of [...probes, ...(chat ? [[chat.messages, chat.ids]] : [])]) {
    const found = text.ids(sample);
    if (found.join() === expected.join()) continue;
    const what = chat && sample === chat.messages ? "chat template" : "tokenizer";
    throw new Error(`The ${what} of this file works otherwise in the browser: ${JSON.stringify(sample)} became ${found}, expected ${expected}.`);
  }
}

function info() {
  const { manifest, threads, why, native, reserved } = model.about;
  return {
    name: manifest.name, file: manifest.file, context: manifest.context, chat: model.text.hasTemplate, sampling: manifest.sampling,
    threads, why, kvType: manifest.kv_type, memory: native.memory.buffer.byteLength, reserved, kernels: model.kernels(),
  };
}

async function generate({ input, options }, id) {
  const steps = model.generate(Array.isArray(input) && typeof input[0] !== "object" ? input : model.text.ids(input), options, () => !going.has(id));
  for (;;) {
    const { value, done } = await steps.next();
    if (done) return value;
    self.postMessage({ id, text: value });
  }
}

const asks = {
  load: (data, id) => load(data, (progress) => self.postMessage({ id, progress })),
  info,
  tokenize: ({ input }) => model.text.ids(input),
  generate,
  logits: ({ tokens }) => model.logits(tokens),
  prove: async () => {
    const { golden } = model.about.manifest;
    return { expected: golden, found: await model.prove(golden), tokenized: model.text.encode(golden.text) };
  },
};

self.onmessage = async ({ data }) => {
  if (data.ask === "stop") {
    going.delete(data.id);
    return;
  }
  going.add(data.id);
  const before = running; // one after the other: they share a session
  running = (async () => {
    await before;
    try {
      if (!model && data.ask !== "load") throw new Error("The model is not loaded.");
      self.postMessage({ id: data.id, done: await asks[data.ask](data, data.id) });
    } catch (error) {
      self.postMessage({ id: data.id, failed: error.message ?? String(error) });
    }
    going.delete(data.id);
  })();
};
