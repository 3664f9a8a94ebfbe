// Keeps page and engines for when there is no network. Models are kept by store.js, which checks
// them; this worker leaves them alone.
const CACHE = 'edgeproof-page';
const SHELL = ['./', 'style.css', 'app.js', 'store.js', 'devices.js', 'site.json', 'NOTICE.txt'];

self.addEventListener('install', (event) => {
  self.skipWaiting();
  event.waitUntil(keepPage());
});

self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));

self.addEventListener('fetch', (event) => {
  const { pathname, origin } = new URL(event.request.url);
  const ours = origin === location.origin && event.request.method === 'GET';
  if (!ours || pathname.includes('/models/')) return;
  const engine = pathname.includes('/vendor-'); // named after its content: never out of date
  event.respondWith(engine ? cacheFirst(event.request) : networkFirst(event.request));
});

async function keepPage() {
  const { engines } = await (await fetch('site.json')).json();
  await (await caches.open(CACHE)).addAll([...SHELL, ...engines]);
}

async function cacheFirst(request) {
  return (await caches.match(request, { cacheName: CACHE })) ?? fetchAndKeep(request);
}

async function networkFirst(request) {
  try {
    return await fetchAndKeep(request);
  } catch (error) {
    const kept = await caches.match(request, { cacheName: CACHE, ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}

async function fetchAndKeep(request) {
  const response = await fetch(request);
  if (response.ok) await (await caches.open(CACHE)).put(request, response.clone());
  return response;
}
