// Runs a program of wasm32-wasi, whose arguments are files: node tests/wasi.mjs PROGRAM [FILE]...
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { argv } from "node:process";
import { WASI } from "node:wasi";

const program = await readFile(argv[2] ?? "").catch(() => null);
if (!program) {
  console.error("usage: node tests/wasi.mjs PROGRAM [FILE]..., PROGRAM being built for wasm32-wasi");
  process.exit(2);
}
const wasi = new WASI({ version: "preview1", args: argv.slice(2).map((each) => resolve(each)), preopens: { "/": "/" }, returnOnExit: true });
const imports = { wasi_snapshot_preview1: wasi.wasiImport };
const { instance } = await WebAssembly.instantiate(program, imports);
process.exitCode = wasi.start(instance);
