// Which device an export runs on, and why it is not the one that was asked for.

// Needs shader-f16 of a GPU.
const FLOAT16 = /f16|fp16/;

export async function gpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return { there: Boolean(adapter), float16: Boolean(adapter?.features.has('shader-f16')) };
}

// A variant's name begins with its dtype: q4f16-recovered, q8-embedding-fp16.
export const dtypeOf = (model) => model.dtype.split('-', 1)[0];

// → { device, message }; throws if the export cannot run at all. An engine says which `devices` it
// has, and, where it has both, which dtypes are `fastOnGpu`.
export function choose(model, { devices, fastOnGpu }, wanted, { there, float16 }) {
  const lacks = !there
    ? 'This browser has no WebGPU'
    : FLOAT16.test(model.dtype) && !float16
      ? 'This GPU has no 16-bit floats in shaders (shader-f16)'
      : null;
  const format = model.format.toUpperCase();
  if (!devices.includes('wasm')) {
    if (lacks) throw new Error(`${lacks}, and ${format} weights run on nothing else. Choose another export.`);
    return { device: 'webgpu', message: '' };
  }
  if (!devices.includes('webgpu')) {
    const message = wanted === 'webgpu' ? `${format} runs on WebAssembly here.` : '';
    return { device: 'wasm', message };
  }
  if (wanted === 'wasm' || (wanted === 'auto' && !fastOnGpu.has(dtypeOf(model)))) {
    return { device: 'wasm', message: '' };
  }
  return lacks
    ? { device: 'wasm', message: `${lacks}: using WebAssembly, which is slower.` }
    : { device: 'webgpu', message: '' };
}

// More than four threads rarely help a small model; without the headers there is only one.
export const threads = () =>
  globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
