// wllama, which has a worker of its own.
export class Engine {
  static devices = ['wasm'];
  #wllama;
  #stopping;

  async load(files, model, { threads, vendor }) {
    const { Wllama, LoggerWithoutDebug } = await import(`${vendor}wllama.min.js`);
    const settings = { logger: LoggerWithoutDebug, suppressNativeLog: true };
    this.#wllama = new Wllama({ default: `${vendor}wllama.wasm` }, settings);
    await this.#wllama.loadModel([...files.values()], {
      n_ctx: 2048,
      n_threads: threads,
      n_gpu_layers: 0,
    });
  }

  async answer(messages, settings, write) {
    this.#stopping = new AbortController();
    const ids = [];
    try {
      const pieces = await this.#wllama.createChatCompletion({
        messages,
        max_tokens: settings.maxTokens,
        temperature: settings.temperature,
        top_p: settings.topP,
        stream: true,
        logprobs: true,
        top_logprobs: 1,
        abortSignal: this.#stopping.signal,
      });
      for await (const { choices } of pieces) {
        for (const token of choices?.[0]?.logprobs?.content ?? []) ids.push(token.id);
        if (choices?.[0]?.delta?.content) write(choices[0].delta.content);
      }
    } catch (error) {
      if (!this.#stopping.signal.aborted) throw error;
    }
    return { ids };
  }

  stop() {
    this.#stopping?.abort();
  }

  close() {
    return this.#wllama?.exit();
  }
}
