/** A model's bytes: streamed into their place in memory, checked by SHA-256, and kept in the browser's storage. */
import { sha256 as incremental } from "@noble/hashes/sha2.js";

const CACHE = "tritpack-models";
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Hexadecimal SHA-256. The browser's own is several times as fast, but only pages over HTTPS, or of this machine, have it. */
export async function sha256(bytes) {
  return hex(crypto.subtle ? new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)) : incremental(bytes));
}

export class Hash {
  #hash = incremental.create();

  add(bytes) {
    this.#hash.update(bytes);
  }

  hex() {
    return hex(this.#hash.digest());
  }
}

/** The storage; null in a browser, or on a page, that has none. */
async function openCache() {
  try {
    return await caches.open(CACHE);
  } catch {
    return null;
  }
}

/** Fetches what has to be there. Throws an Error with a sentence, and then with what else there is to say. */
export async function get(url, what, more = "", cache = "no-cache") {
  const answer = await fetch(url, { cache }).catch(() => null);
  if (!answer) throw new Error(`${what} cannot be reached (${url}). Is the network there?${more}`);
  if (!answer.ok) throw new Error(`${what} is not there: ${url} answers ${answer.status} ${answer.statusText}.`);
  return answer;
}

/** A small file whose hash is known, from the storage or from its address: its bytes. */
export async function getChecked({ url, sha256: expected, size }, base, what) {
  const bytes = new Uint8Array(size);
  await fill([{ url, sha256: expected, size }], base, () => bytes, () => {}, () => what);
  return bytes;
}

/** The bytes of a script or WebAssembly module. expected: its SHA-256; undefined where nobody has said it. Throws an Error with a sentence. */
export async function getModule(url, expected, what, cache) {
  const bytes = await (await get(url, what, "", cache)).arrayBuffer().catch(() => {
    throw new Error(`The download of ${lower(what)} broke off (${url}). Try again.`);
  });
  const found = expected && (await sha256(new Uint8Array(bytes)));
  if (found === expected) return bytes;
  await fetch(url, { cache: "reload" }).catch(() => null); // so that the browser's own copy is a new one from now on
  const differ = `its SHA-256 is ${short(found)}, expected ${short(expected)}`;
  throw new Error(`${what} (${new URL(url).pathname}) is damaged, or of another version than the model: ${differ}. Reload the page.`);
}

/**
 * Fills memory with parts, one after the other. target(offset, size) gives the bytes to write to; onProgress(bytes so far).
 * Each part is checked: a damaged one of the storage is fetched again, another is refused.
 * Returns whether older models can go: because all parts came from the storage, or because the storage is full.
 */
export async function fill(parts, base, target, onProgress, name = (i) => `Part ${i + 1} of ${parts.length} of the model`) {
  const cache = await openCache();
  let offset = 0, kept = 0, wereStored = true, full = false;
  for (const [i, part] of parts.entries()) {
    const into = target(offset, part.size), report = (bytes) => onProgress(offset + bytes);
    const url = new URL(part.url, base), key = new URL(url);
    key.searchParams.set("sha256", part.sha256);
    const stored = await cache?.match(key);
    let found = stored && (await readInto(stored, into, report).catch(() => null));
    if (found?.sha256 === part.sha256) kept += 1;
    else {
      wereStored = false;
      if (stored) await cache.delete(key);
      const more = i > 0 && kept === i ? " What was complete is kept." : "";
      found = await readInto(await get(url, name(i), more), into, report).catch(() => {
        throw new Error(`The download of ${lower(name(i))} broke off.${more} Try again.`);
      });
      if (found.sha256 !== part.sha256) throw new Error(damaged(name(i), url, part, found));
      // A full storage only means another download.
      await cache?.put(key, new Response(found.copy)).then(() => { kept += 1; }, () => { full = true; });
    }
    offset += part.size;
    onProgress(offset);
  }
  return wereStored || full;
}

/** Deletes from the storage what lies in the folder of `base`, but in none below it, and is not one of these files. */
export async function forgetOthers(files, base) {
  const cache = await openCache(), folder = new URL(".", base).href, hashes = new Set(files.map((file) => file.sha256));
  for (const { url } of (await cache?.keys()) ?? []) {
    if (new URL(".", url).href === folder && !hashes.has(new URL(url).searchParams.get("sha256"))) await cache.delete(url);
  }
}

/** Fills memory from a Blob, in pieces as long as the parts of a model's manifest, and checks each. */
export async function fillFromBlob(blob, { file, parts }, target, onProgress) {
  if (parts.reduce((sum, part) => sum + part.size, 0) !== file.size) {
    throw new Error("The parts of this model hold more than its file: load it from the folder that tritpack web wrote.");
  }
  if (blob.size !== file.size) throw new Error(`This is another file: it has ${blob.size} bytes, expected ${file.size}. Nothing of it is used.`);
  let offset = 0;
  for (const [i, part] of parts.entries()) {
    const name = `Part ${i + 1} of ${parts.length} of the file`;
    const found = await readInto(new Response(blob.slice(offset, offset + part.size)), target(offset, part.size), (n) => onProgress(offset + n));
    if (found.sha256 !== part.sha256) throw new Error(damaged(name, null, part, found));
    offset += part.size;
  }
}

async function readInto(answer, into, report) {
  const reader = answer.body.getReader();
  let at = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    if (at + value.length > into.length) {
      reader.cancel().catch(() => {}); // it may never be answered
      return { sha256: null, size: `more than ${into.length}` };
    }
    into.set(value, at);
    at += value.length;
    report(at);
  }
  if (at < into.length) return { sha256: null, size: at };
  const copy = into.slice().buffer; // shared memory can be neither hashed nor stored
  const bytes = copy instanceof ArrayBuffer ? new Uint8Array(copy) : Uint8Array.from(new Uint8Array(copy));
  return { sha256: await sha256(bytes), size: at, copy: bytes };
}

function damaged(name, url, part, found) {
  const where = url ? ` (${url.pathname})` : "";
  if (!found.sha256) return `${name}${where} is damaged: it has ${found.size} bytes, expected ${part.size}. Nothing of it is used.`;
  return `${name}${where} is damaged: its SHA-256 is ${short(found.sha256)}, expected ${short(part.sha256)}. Nothing of it is used.`;
}

const short = (hash) => `${hash.slice(0, 16)}...`;
const lower = (text) => text[0].toLowerCase() + text.slice(1);
