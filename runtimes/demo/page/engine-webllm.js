// WebLLM. It takes files from its own caches, so the verified ones are put there; the model library
// is given as a blob.
export class Engine {
  static devices = ['webgpu'];
  #engine;

  async load(files, model, { vendor }) {
    const { MLCEngine } = await import(`${vendor}web-llm.js`);
    const base = new URL(`${model.folder}/resolve/main/`, location.href).href;
    for (const [name, wanted] of [['webllm/config', /\.json$/], ['webllm/model', /\.(json|bin)$/]]) {
      const cache = await caches.open(name);
      for (const [path, blob] of files) {
        if (wanted.test(path)) await cache.put(base + path, new Response(blob));
      }
    }
    const [record] = JSON.parse(await files.get('webllm-model.json').text()).model_list;
    const library = [...files].find(([path]) => path.endsWith('.wasm'))[1];
    const wasm = new Blob([library], { type: 'application/wasm' });
    record.model = base;
    record.model_lib = URL.createObjectURL(wasm);
    const appConfig = { model_list: [record], cacheBackend: 'cache' };
    this.#engine = new MLCEngine({ appConfig });
    await this.#engine.reload(record.model_id);
  }

  async answer(messages, settings, write) {
    const pieces = await this.#engine.chat.completions.create({
      messages,
      max_tokens: settings.maxTokens,
      temperature: settings.temperature,
      top_p: settings.topP,
      stream: true,
    });
    let count = 0;
    for await (const { choices } of pieces) {
      if (choices[0]?.delta.content) {
        count += 1;
        write(choices[0].delta.content);
      }
    }
    return { count };
  }

  stop() {
    this.#engine.interruptGenerate();
  }

  close() {
    return this.#engine?.unload();
  }
}
