// Decodes greedily with the page's module under node: node web_node.mjs FOLDER THREADS TOKENS, FOLDER being that of `tritpack web`.
// Prints {"tokens_per_second": ..., "ids": [...]}. A thread of its pool is this file again, as a worker.
import { readFileSync } from "node:fs";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { imports, Native, reserveFor, THREAD_STACK } from "../../runtime/web/engine/native.js";
import { likeliest } from "../../runtime/web/engine/sampler.js";

if (isMainThread) main(argv[2], Number(argv[3]), Number(argv[4]));
else
  parentPort.once("message", ({ module, memory, index, stack }) => {
    const { exports } = new WebAssembly.Instance(module, imports(module, memory));
    exports.__stack_pointer.value = stack;
    exports.tp_pool_work(index);
  });

async function main(folder, threads, count) {
  const manifest = JSON.parse(readFileSync(`${folder}/model.json`, "utf-8"));
  const module = new WebAssembly.Module(readFileSync(`${folder}/tritpack/${threads > 1 ? "tritpack-threads" : "tritpack"}.wasm`));
  const { memory } = reserveFor(manifest, { threads });
  const native = new Native(module, memory);
  const image = native.take(manifest.parts.reduce((sum, part) => sum + part.size, 0));
  let at = image;
  for (const { url, size } of manifest.parts) {
    native.bytes(at, size).set(readFileSync(`${folder}/${url}`));
    at += size;
  }
  const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
  const { hparams, layers, ends, frequencies } = manifest.structs;
  const structs = { hparams: bytes(hparams), layers: bytes(layers), ends: bytes(ends), frequencies: frequencies.map(bytes) };
  native.open(structs, image, { context: manifest.context, kvType: manifest.kv_type, threads });
  for (let index = 1; index < threads; index += 1) {
    const worker = new Worker(fileURLToPath(import.meta.url));
    worker.postMessage({ module, memory, index, stack: native.take(THREAD_STACK) + THREAD_STACK });
    worker.unref();
  }
  await new Promise((resolve) => setTimeout(resolve, 300)); // for the workers to come
  let ids, begin;
  for (const round of ["warm", "measured"]) { // V8 compiles what runs often a second time
    native.rewind(0);
    ids = [likeliest(native.eval(manifest.golden.prompt))];
    begin = performance.now();
    while (ids.length <= (round === "warm" ? Math.min(count, 200) : count)) ids.push(likeliest(native.eval(ids.slice(-1))));
  }
  console.log(JSON.stringify({ tokens_per_second: count / ((performance.now() - begin) / 1000), ids }));
  process.exit(0);
}
