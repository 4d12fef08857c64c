/* The service worker of the folder that `tritpack web` writes. It gives the files of the page the headers that make a page
 * cross-origin isolated (threads need that, and static hosts rarely set them), and it keeps them for times without a network.
 * With a network the host's own files are shown. The model itself is kept by the worker that loads it (engine/download.js).
 * `tritpack web` writes VERSION and FILES, the SHA-256 of each file, before this text. */
/* global VERSION, FILES */
const SCOPE = self.registration.scope, CACHE = `tritpack-page ${SCOPE} `, NAME = CACHE + VERSION;
let kept = null; // the cache that the page comes from while there is no network

self.addEventListener("install", (event) => {
  event.waitUntil((async () => {
    const answers = await Promise.all(Object.keys(FILES).map(checked));
    await caches.delete(NAME); // so that its place among the others is that of the newest
    const cache = await caches.open(NAME);
    try {
      for (const [file, answer] of answers) await cache.put(file, answer); // model.json is the last
    } catch (error) {
      await caches.delete(NAME);
      throw error;
    }
    await self.skipWaiting(); // it only answers from a cache whose model is there, so it may replace the older one at once
  })());
});

self.addEventListener("fetch", (event) => {
  const { request } = event, url = request.url.replace(/[?#].*/s, "");
  const file = url.startsWith(SCOPE) && (url.slice(SCOPE.length) || "index.html");
  if (request.method !== "GET" || !Object.hasOwn(FILES, file)) return; // a page beside ours on this host
  const page = request.mode === "navigate";
  if (page) event.waitUntil(forgetOlder());
  event.respondWith(answer(file, page));
});

/** Fetches a file that belongs to this version: a host may still give an older one. */
async function checked(file) {
  const answer = await fetch(file, { cache: "reload" });
  const bytes = await answer.arrayBuffer(), digest = await crypto.subtle.digest("SHA-256", bytes);
  const hash = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (!answer.ok || hash !== FILES[file]) throw new Error(`${file} is not the one that belongs to this version of the page.`);
  return [file, new Response(bytes, { headers: answer.headers })];
}

async function answer(file, page) {
  if (page) kept = null;
  const found = (await kept?.match(file)) ?? (await fetched(file));
  const headers = new Headers(found.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}

/** A file of the host, or without a network the one that was kept. */
async function fetched(file) {
  const found = await fetch(file === "index.html" ? SCOPE : file, { cache: "no-cache" }).catch(() => null);
  if (found && found.status < 500) return found;
  kept = await newestComplete();
  return (await kept?.match(file)) ?? found ?? Response.error();
}

/** The versions of the page that are kept, the oldest first. */
async function versions() {
  return (await caches.keys()).filter((name) => name.startsWith(CACHE));
}

/** The newest version of the page whose model is in the storage; without one, the newest. */
async function newestComplete() {
  const names = (await versions()).reverse();
  for (const name of names) if (await isComplete(name)) return caches.open(name);
  return names.length ? caches.open(names[0]) : null;
}

async function isComplete(name) {
  const answer = await (await caches.open(name)).match("model.json");
  if (!answer) return false;
  const { parts, text } = await answer.json();
  const stored = new Set((await (await caches.open("tritpack-models")).keys()).map(({ url }) => url));
  return [...parts, text.tokenizer, text.pieces].every(({ url, sha256 }) => stored.has(`${new URL(url, SCOPE)}?sha256=${sha256}`));
}

/** Deletes older versions of the page, once this one can do without a network. */
async function forgetOlder() {
  const names = await versions(), older = names.slice(0, Math.max(0, names.indexOf(NAME)));
  if (older.length && (await isComplete(NAME))) await Promise.all(older.map((name) => caches.delete(name)));
}
