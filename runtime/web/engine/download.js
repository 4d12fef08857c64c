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

async function openCache() {
  return typeof caches === "undefined" ? null : caches.open(CACHE).catch(() => null);
}

/** Fetches what has to be there. Throws an Error with a sentence. */
export async function get(url, what) {
  const answer = await fetch(url, { cache: "no-cache" }).catch(() => null);
  if (!answer) throw new Error(`${what} cannot be reached (${url}). Is the network there? What was downloaded so far is kept.`);
  if (!answer.ok) throw new Error(`${what} is not there: ${url} answers ${answer.status} ${answer.statusText}.`);
  return answer;
}

/** A small file whose hash is known, from the storage or from its address: its bytes. */
export async function getChecked({ url, sha256: expected, size }, base, what) {
  const bytes = new Uint8Array(size);
  await fill([{ url, sha256: expected, size }], base, () => bytes, () => {}, () => what);
  return bytes;
}

/**
 * Fills memory with parts, one after the other. target(offset, size) gives the bytes to write to; onProgress(bytes so far).
 * Each part is checked: a damaged one of the storage is fetched again, another is refused.
 */
export async function fill(parts, base, target, onProgress, name = (i) => `Part ${i + 1} of ${parts.length} of the model`) {
  const cache = await openCache();
  let offset = 0;
  for (const [i, part] of parts.entries()) {
    const into = target(offset, part.size), report = (bytes) => onProgress(offset + bytes);
    const url = new URL(part.url, base), key = new URL(url);
    key.searchParams.set("sha256", part.sha256);
    const kept = await cache?.match(key);
    let found = kept && (await readInto(kept, into, report).catch(() => null));
    if (found?.sha256 !== part.sha256) {
      if (kept) await cache.delete(key);
      found = await readInto(await get(url, name(i)), into, report).catch((error) => {
        throw error.sentence ? error : new Error(`The download of ${lower(name(i))} broke off. What was complete is kept: try again.`);
      });
      if (found.sha256 !== part.sha256) throw new Error(damaged(name(i), url, part, found));
      await cache?.put(key, new Response(found.copy)).catch(() => {}); // a full storage only means another download
    }
    offset += part.size;
    onProgress(offset);
  }
}

/** Deletes from the storage what lies under `base` and is not one of these files. */
export async function forgetOthers(files, base) {
  const cache = await openCache(), folder = new URL(".", base).href, hashes = new Set(files.map((file) => file.sha256));
  for (const { url } of (await cache?.keys()) ?? []) {
    if (url.startsWith(folder) && !hashes.has(new URL(url).searchParams.get("sha256"))) await cache.delete(url);
  }
}

/** Fills memory from a Blob, in pieces as long as the parts, and checks each. */
export async function fillFromBlob(blob, parts, target, onProgress) {
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
      return { sha256: null, size: at + value.length };
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
  if (!found.sha256) return `${name}${where} is damaged: it has ${found.size} bytes or more, expected ${part.size}. Nothing of it is used.`;
  return `${name}${where} is damaged: its SHA-256 is ${short(found.sha256)}, expected ${short(part.sha256)}. Nothing of it is used.`;
}

const short = (hash) => `${hash.slice(0, 16)}...`;
const lower = (text) => text[0].toLowerCase() + text.slice(1);
