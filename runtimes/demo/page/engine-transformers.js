// transformers.js, in a worker: computing on WebAssembly would freeze the page.
import { dtypeOf } from './devices.js';

export class Engine {
  static devices = ['webgpu', 'wasm'];
  static fastOnGpu = new Set(['fp32', 'fp16', 'q4', 'q4f16']);
  #worker = new Worker(new URL('./worker-transformers.js', import.meta.url), { type: 'module' });
  #waiting = null;

  constructor() {
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) =>
      this.#receive({ error: event.message || 'the engine cannot be started' });
  }

  load(files, model, options) {
    return this.#call({ load: { files, dtype: dtypeOf(model), ...options } });
  }

  // Resolves with { ids } when the answer has ended; `write` is given each piece of text.
  answer(messages, settings, write) {
    return this.#call({ answer: { messages, settings } }, write);
  }

  stop() {
    this.#worker.postMessage({ stop: true });
  }

  close() {
    this.#worker.terminate();
  }

  #call(message, write) {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject, write };
      this.#worker.postMessage(message);
    });
  }

  #receive({ text, result, error }) {
    if (text !== undefined) this.#waiting?.write(text);
    else if (error !== undefined) this.#waiting?.reject(new Error(error));
    else this.#waiting?.resolve(result);
  }
}
