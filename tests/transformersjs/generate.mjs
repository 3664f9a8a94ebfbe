// Load ONNX artifacts in transformers.js, answer a chat prompt greedily: a line of JSON for each.
// Usage: node generate.mjs FOLDER DTYPE[,DTYPE…] [MAX_NEW_TOKENS] [QUESTION]
// FOLDER has one artifact per dtype, named after it.
import path from 'node:path';
import { AutoModelForCausalLM, AutoTokenizer, env } from '@huggingface/transformers';

const [folder, dtypes, maxNewTokens = '20', question = 'What is the capital of France?'] =
  process.argv.slice(2);
if (!folder || !dtypes) {
  console.error('usage: node generate.mjs FOLDER DTYPE[,DTYPE…] [MAX_NEW_TOKENS] [QUESTION]');
  process.exit(2);
}
env.allowRemoteModels = false;
env.localModelPath = path.resolve(folder);
for (const dtype of dtypes.split(',')) console.log(JSON.stringify(await answer(dtype)));

async function answer(dtype) {
  const tokenizer = await AutoTokenizer.from_pretrained(dtype);
  const model = await AutoModelForCausalLM.from_pretrained(dtype, { dtype, device: 'cpu' });
  const inputs = tokenizer.apply_chat_template([{ role: 'user', content: question }], {
    add_generation_prompt: true,
    return_dict: true,
  });
  const promptLength = inputs.input_ids.dims[1];

  // What the graph computed in each forward pass: [positions with logits, type].
  const logits = [];
  const forward = model.forward.bind(model);
  model.forward = async (modelInputs) => {
    const outputs = await forward(modelInputs);
    logits.push([outputs.logits.dims[1], outputs.logits.type]);
    return outputs;
  };
  const output = await model.generate({
    ...inputs,
    max_new_tokens: Number(maxNewTokens),
    do_sample: false,
  });
  const promptIds = inputs.input_ids.tolist()[0].map(Number);
  const ids = output.tolist()[0].slice(promptLength).map(Number);
  await model.dispose();
  return {
    transformersjs: env.version,
    dtype,
    prompt_ids: promptIds,
    ids,
    text: tokenizer.decode(ids, { skip_special_tokens: true }),
    prefill_logits: logits[0],
    decode_logits: logits.at(-1),
  };
}
