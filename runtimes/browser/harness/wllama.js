// A GGUF file in wllama, which gives no logits and takes prompts as text only: greedy token ids.
import { Wllama } from '/web/wllama.min.js';

let engine;

export async function open({ files, threads, context }) {
  const quiet = { debug() {}, log() {}, warn() {}, error: console.error };
  engine = new Wllama({ default: '/web/wllama.wasm' }, { logger: quiet, suppressNativeLog: true });
  const blobs = [];
  for (const file of files) blobs.push(await (await fetch(`/artifact/${file}`)).blob());
  await engine.loadModel(blobs, { n_ctx: context, n_threads: threads, n_gpu_layers: 0 });
  return { version: Wllama.getLibllamaVersion(), template: engine.getChatTemplate() };
}

// Up to `count` tokens after a rendered prompt, the stop token included; and how many it read.
export async function generate(prompt, count) {
  const answer = await engine.createCompletion({
    prompt, max_tokens: count, temperature: 0, n_probs: 1,
  });
  const ids = answer.choices[0].logprobs.content.map((token) => token.id);
  return { ids, prompt_tokens: answer.usage.prompt_tokens };
}
