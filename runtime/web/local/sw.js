/* The service worker of the folder that `tritpack web` writes. It gives every answer the headers that make a page cross-origin
 * isolated (threads need that, and static hosts rarely set them), and it keeps the page for times without a network. The model
 * itself is kept by the worker that loads it. `tritpack web` writes VERSION and FILES before this text. */
/* global VERSION, FILES */
const CACHE = `tritpack-page ${self.registration.scope}`;
const NAME = `${CACHE} ${VERSION}`;

self.addEventListener("install", (event) => {
  event.waitUntil((async () => {
    const cache = await caches.open(NAME);
    await cache.addAll(FILES.map((file) => new Request(file, { cache: "reload" })));
    await self.skipWaiting();
  })());
});

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) if (name.startsWith(`${CACHE} `) && name !== NAME) await caches.delete(name);
    await self.clients.claim();
  })());
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || new URL(request.url).origin !== location.origin) return;
  event.respondWith(answer(request));
});

async function answer(request) {
  const kept = await caches.open(NAME).then((cache) => cache.match(request, { ignoreSearch: request.mode === "navigate" }));
  const found = kept ?? (await fetch(request));
  if (found.type === "opaque" || found.type === "error" || found.status === 0) return found;
  const headers = new Headers(found.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}
