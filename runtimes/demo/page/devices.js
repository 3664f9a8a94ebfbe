// Which device an export runs on, and why it is not the one that was asked for.

// What each dtype is fastest on, where there is a choice; float16 needs shader-f16 of a GPU.
const ON_GPU = new Set(['fp32', 'fp16', 'q4', 'q4f16']);
const FLOAT16 = /f16|fp16/;

export async function gpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return { there: Boolean(adapter), float16: Boolean(adapter?.features.has('shader-f16')) };
}

// → { device, message }; throws if the export cannot run at all.
export function choose(model, wanted, { there, float16 }) {
  const lacks = !there
    ? 'This browser has no WebGPU'
    : FLOAT16.test(model.dtype) && !float16
      ? 'This GPU has no 16-bit floats in shaders (shader-f16)'
      : null;
  if (model.format === 'mlc') {
    if (lacks) throw new Error(`${lacks}, and MLC weights run on nothing else. Choose another export.`);
    return { device: 'webgpu', message: '' };
  }
  if (model.format === 'gguf') {
    const message = wanted === 'webgpu' ? 'GGUF runs on WebAssembly here.' : '';
    return { device: 'wasm', message };
  }
  if (wanted === 'wasm' || (wanted === 'auto' && !ON_GPU.has(model.dtype))) {
    return { device: 'wasm', message: '' };
  }
  return lacks
    ? { device: 'wasm', message: `${lacks}: using WebAssembly, which is slower.` }
    : { device: 'webgpu', message: '' };
}

// More than four threads rarely help a small model; without the headers there is only one.
export const threads = () =>
  globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
