// The models' files: downloaded with progress, kept in the Cache API, and never given out unless
// their SHA-256 is the manifest's, whether they come from the network or from the cache.
const CACHE = 'edgeproof-models';

export class Damaged extends Error {}

export async function sha256(blob) {
  if (!globalThis.crypto?.subtle) {
    throw new Error('Files cannot be checked here: the page needs https:// or localhost.');
  }
  const digest = await crypto.subtle.digest('SHA-256', await blob.arrayBuffer());
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

// All of a model's files as a Map of path → Blob. `report(bytes)` is called as they arrive.
export async function verifiedFiles(model, signal, report) {
  const manifest = await verified(model, { path: 'edgeproof.json', ...model.manifest }, signal);
  const known = new Map(JSON.parse(await manifest.text()).outputs.map((item) => [item.path, item]));
  const files = new Map();
  let done = 0;
  for (const path of model.files) {
    const item = known.get(path);
    if (!item) throw new Damaged(`${path} is not in the manifest: it is not used.`);
    files.set(path, await verified(model, item, signal, (bytes) => report(done + bytes)));
    done += item.bytes;
    report(done);
  }
  return files;
}

export async function isCached(model) {
  const cache = await open();
  if (!cache) return false;
  const found = await Promise.all(model.files.map((path) => cache.match(address(model, path))));
  return found.every(Boolean);
}

export async function forget(model) {
  const cache = await open();
  for (const path of ['edgeproof.json', ...model.files]) await cache?.delete(address(model, path));
}

const address = (model, path) => new URL(`${model.folder}/${path}`, location.href).href;

// Private windows of some browsers have none: then everything is downloaded each time.
const open = () => globalThis.caches?.open(CACHE).catch(() => null);

async function verified(model, { path, bytes, sha256: expected }, signal, report = () => {}) {
  const url = address(model, path);
  const cache = await open();
  const kept = await (await cache?.match(url))?.blob();
  if (kept && (await sha256(kept)) === expected) return kept;
  await cache?.delete(url);
  const blob = await download(url, path, signal, report);
  if (blob.size !== bytes || (await sha256(blob)) !== expected) {
    throw new Damaged(`${path} is damaged: its SHA-256 is not the manifest's. It is not used.`);
  }
  await cache?.put(url, new Response(blob)).catch(() => {}); // no room left is no reason to stop
  return blob;
}

async function download(url, path, signal, report) {
  const response = await fetch(url, { signal, cache: 'no-store' });
  if (!response.ok) throw new Error(`${path} cannot be downloaded (HTTP ${response.status}).`);
  const parts = [];
  let received = 0;
  const reader = response.body.getReader();
  for (let part; !(part = await reader.read()).done; ) {
    parts.push(part.value);
    received += part.value.length;
    report(received);
  }
  return new Blob(parts);
}
