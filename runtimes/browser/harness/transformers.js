// An ONNX folder in transformers.js: its tokenizer, its session, its KV cache.
import { AutoModelForCausalLM, AutoTokenizer, DynamicCache, Tensor, env } from '/web/transformers.min.js';

let tokenizer, model, cache, length;

export async function open({ dtype, device, threads }) {
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = '/';
  env.useBrowserCache = env.useWasmCache = false;
  Object.assign(env.backends.onnx.wasm, { wasmPaths: '/web/', numThreads: threads });
  tokenizer = await AutoTokenizer.from_pretrained('artifact');
  model = await AutoModelForCausalLM.from_pretrained('artifact', { dtype, device });
  clear();
  return { device: device === 'webgpu' ? await gpu() : 'wasm' };
}

export const tokenize = (text) => tokenizer.encode(text, { add_special_tokens: false });

export function clear() {
  cache?.dispose();
  cache = null;
  length = 0;
}

// Append tokens; the logits of all of them, or of the last, are posted as raw little-endian values.
export async function extend(ids, every) {
  length += ids.length;
  const integers = (values, dims) => new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
  const outputs = await model({
    input_ids: integers(ids, [1, ids.length]),
    attention_mask: integers(Array(length).fill(1), [1, length]),
    past_key_values: cache,
    num_logits_to_keep: integers([every ? 0 : 1], []),
  });
  const present = Object.entries(outputs).filter(([name]) => name.startsWith('present'));
  const past = present.map(([name, value]) => [name.replace('present', 'past_key_values'), value]);
  if (cache) cache.update(Object.fromEntries(past));
  else cache = new DynamicCache(Object.fromEntries(past));
  const { data, dims, type } = outputs.logits;
  await post(data);
  return { dims, type };
}

// The stock way: the library's own loop, greedy.
export async function generate(ids, count) {
  const input_ids = new Tensor('int64', BigInt64Array.from(ids, BigInt), [1, ids.length]);
  const attention_mask = new Tensor('int64', new BigInt64Array(ids.length).fill(1n), [1, ids.length]);
  const out = await model.generate({
    input_ids, attention_mask, max_new_tokens: count, do_sample: false,
  });
  return out.tolist()[0].slice(ids.length).map(Number);
}

async function post(body) {
  const token = new URLSearchParams(location.search).get('token');
  const answer = await fetch('/posted', { method: 'POST', body, headers: { 'X-Edgeproof-Token': token } });
  if (!answer.ok) throw new Error(`${body.byteLength} bytes were not taken: ${answer.status}`);
}

async function gpu() {
  const adapter = await navigator.gpu.requestAdapter();
  return adapter.features.has('shader-f16') ? 'WebGPU with shader-f16' : 'WebGPU';
}
