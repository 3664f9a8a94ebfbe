// MLC weights in WebLLM as far as it goes without a model library: its own code reads the chat
// config, makes the tokenizer, and fetches and cuts the shards. Only where the arrays would go, into
// a compiled model's memory, is a stand-in that keeps their bytes' hashes.
const MODEL = new URL('/artifact/', location.href).href;
const ID = 'artifact';
const WEBGPU = 15; // DLPack's number of the device
const appConfig = { model_list: [{ model: MODEL, model_id: ID }], cacheBackend: 'cache' };

// The library's own text with two more of its names exported: npm's file has no other way in.
async function library() {
  const text = await (await fetch('/web/web-llm.js')).text();
  const more = '\nexport { libExports$2 as tvmjs, asyncLoadTokenizer };';
  return import(URL.createObjectURL(new Blob([text, more], { type: 'text/javascript' })));
}

export async function read(texts) {
  const webllm = await library();
  const { config, refusal } = await readConfig(webllm);
  const base = `${MODEL}resolve/main/`;
  const tokenizer = await webllm.asyncLoadTokenizer(base, config, appConfig, () => {});
  const ids = texts.map((text) => Array.from(tokenizer.encode(text)));
  return { config, refusal, ids, arrays: await readArrays(webllm.tvmjs, base) };
}

// A record without a model library: `reload` reads the config and then says what is missing.
async function readConfig({ MLCEngine }) {
  const engine = new MLCEngine({ appConfig });
  const refusal = await engine.reload(ID).then(() => '', (error) => error.name);
  return { config: engine.loadedModelIdToChatConfig.get(ID), refusal };
}

async function readArrays({ Instance }, base) {
  const arrays = {};
  const hashes = [];
  const standIn = Object.assign(Object.create(Instance.prototype), {
    initProgressCallback: [],
    env: { logger: console.error },
    withNewScope: (make) => make(),
    detachFromCurrentScope: (array) => array,
    empty: (shape, dtype) => ({
      shape,
      dtype,
      copyFromRawBytes(bytes) {
        this.bytes = bytes.length;
        hashes.push(sha256(bytes.slice()).then((digest) => (this.sha256 = digest)));
      },
      dispose() {},
    }),
    tensorCacheUpdate: (name, array) => (arrays[name] = array),
  });
  const device = { deviceType: WEBGPU, sync: async () => {} };
  await standIn.fetchTensorCache(base, device, { cacheScope: 'webllm/model' });
  await Promise.all(hashes);
  return Object.fromEntries(
    Object.entries(arrays).map(([name, { shape, dtype, sha256 }]) => [name, { shape, dtype, sha256 }]),
  );
}

async function sha256(bytes) {
  const digest = await crypto.subtle.digest('SHA-256', bytes);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
