// The worker of engine-transformers.js. It gives transformers.js the verified files and nothing else: what
// is not among them does not exist, for the network is never asked.
let library, tokenizer, model;
const interrupt = { criteria: null };

self.onmessage = async ({ data }) => {
  if (data.stop) return interrupt.criteria?.interrupt();
  try {
    self.postMessage({ result: data.load ? await load(data.load) : await answer(data.answer) });
  } catch (error) {
    self.postMessage({ error: String(error?.message ?? error) });
  }
};

async function load({ files, dtype, device, threads, vendor }) {
  library = await import(`${vendor}transformers.min.js`);
  const { AutoModelForCausalLM, AutoTokenizer, env } = library;
  const prefix = '/verified/';
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = prefix;
  env.useBrowserCache = env.useWasmCache = false;
  env.useCustomCache = true;
  env.customCache = {
    async match(key) {
      const blob = files.get(key.replace(`${prefix}model/`, ''));
      return blob && new Response(blob);
    },
    async put() {},
  };
  env.fetch = async () => new Response(null, { status: 404 });
  Object.assign(env.backends.onnx.wasm, { wasmPaths: vendor, numThreads: threads });
  tokenizer = await AutoTokenizer.from_pretrained('model');
  model = await AutoModelForCausalLM.from_pretrained('model', { dtype, device });
  const forward = model.forward.bind(model);
  model.forward = async (inputs) => {
    await turn();
    return forward(inputs);
  };
}

// Lets a waiting message (stop) be received: on WebAssembly a step never gives way by itself.
const turn = () => new Promise((resolve) => setTimeout(resolve));

async function answer({ messages, settings }) {
  const { InterruptableStoppingCriteria, LogitsProcessorList, TextStreamer } = library;
  const inputs = tokenizer.apply_chat_template(messages, {
    add_generation_prompt: true,
    return_dict: true,
  });
  interrupt.criteria = new InterruptableStoppingCriteria();
  const processors = new LogitsProcessorList();
  if (settings.temperature > 0) processors.push(nucleus(settings.topP));
  const ids = [];
  await model.generate({
    ...inputs,
    max_new_tokens: settings.maxTokens,
    do_sample: settings.temperature > 0,
    temperature: settings.temperature,
    top_k: 0,
    logits_processor: processors,
    stopping_criteria: interrupt.criteria,
    streamer: new TextStreamer(tokenizer, {
      skip_prompt: true,
      callback_function: (text) => self.postMessage({ text }),
      token_callback_function: (tokens) => ids.push(...tokens.map(Number)),
    }),
  });
  return { ids };
}

// Top-p, which transformers.js 4.3 accepts and ignores: leaves the fewest tokens whose
// probabilities add up to p. It runs after temperature, on the only row there is.
function nucleus(p) {
  return (_, logits) => {
    keepNucleus(logits.data, p);
    return logits;
  };
}

function keepNucleus(values, p) {
  const best = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const near = [];
  let total = 0;
  values.forEach((value, index) => {
    const weight = Math.exp(value - best);
    total += weight;
    if (weight > 1e-9) near.push([weight, index]);
  });
  near.sort((a, b) => b[0] - a[0]);
  const kept = [];
  let mass = 0;
  for (const [weight, index] of near) {
    kept.push([index, values[index]]);
    mass += weight;
    if (mass >= p * total) break;
  }
  values.fill(-Infinity);
  for (const [index, value] of kept) values[index] = value;
}
