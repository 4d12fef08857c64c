// Bundles the engine: node build.mjs FOLDER OUTPUT [NAME]... `make web` calls it. FOLDER has node_modules with what package.json
// names; NAME is a module of engine/ to bundle alone, for tests.
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";

const [, , folder, output, ...names] = argv;
const { build } = createRequire(resolve(folder, "package.json"))("esbuild");
const source = (name) => fileURLToPath(new URL(`engine/${name}.js`, import.meta.url));
await build({
  entryPoints: names.length
    ? Object.fromEntries(names.map((name) => [name, source(name)]))
    : { tritpack: source("index"), "tritpack-worker": source("worker"), "tritpack-thread": source("thread") },
  outdir: output,
  bundle: true,
  format: "esm",
  target: ["es2022"],
  minify: true,
  nodePaths: [resolve(folder, "node_modules")],
  legalComments: "none",
  banner: { js: "/* tritpack; with @huggingface/tokenizers and @huggingface/jinja (see licenses.txt) and @noble/hashes (MIT) */" },
  logLevel: "warning",
});
