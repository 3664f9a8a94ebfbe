// The page: what is chosen, loaded, asked and shown. Files are store.js's, devices devices.js's,
// and site.json names each model's engine.
import { choose, gpu, threads } from './devices.js';
import { Damaged, forget, isCached, verifiedFiles } from './store.js';

const VERDICTS = {
  PASS: 'meets the gates of its precision',
  DEGRADED: 'works, below its quality gate',
  INCONCLUSIVE: 'needs more text to judge',
  FAIL: 'broken',
};
const at = (id) => document.getElementById(id);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

const state = { site: null, model: null, engine: null, messages: [], downloading: null, answering: false };
globalThis.edgeproof = state; // for tests, and for a curious reader's console

start();

async function start() {
  navigator.serviceWorker?.register('sw.js').catch(() => {}); // offline only; the page works without
  try {
    state.site = await (await fetch('site.json')).json();
  } catch {
    return problem('The list of models cannot be read: open this page from a web server.');
  }
  await showModels();
  at('load').addEventListener('click', load);
  at('cancel').addEventListener('click', () => state.downloading?.abort());
  at('ask').addEventListener('submit', (event) => (event.preventDefault(), ask()));
  at('stop').addEventListener('click', stop);
  at('clear').addEventListener('click', clear);
  at('question').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      ask();
    }
  });
  document.addEventListener('keydown', (event) => event.key === 'Escape' && stop());
  document.body.dataset.ready = 'true';
}

async function showModels() {
  const chosen = selected()?.id ?? state.site.models[0]?.id;
  const cached = await Promise.all(state.site.models.map(isCached));
  at('models').replaceChildren(
    ...state.site.models.map((model, index) => {
      const label = element('label', 'model');
      const radio = element('input');
      Object.assign(radio, { type: 'radio', name: 'model', value: model.id });
      radio.checked = model.id === chosen;
      const name = element('span', '', `${model.format.toUpperCase()} ${model.dtype}`);
      const verdict = element('span', `verdict ${model.verdict ?? ''}`, model.verdict ?? 'not compared');
      const facts = [
        ...(model.ships_for.length ? [`recommended for ${model.ships_for.join(', ')}`] : []),
        model.name,
        megabytes(model.bytes),
        `${model.bits.toFixed(2)} bits per weight`,
        ...model.found,
        ...(model.verdict ? [VERDICTS[model.verdict]] : []),
        ...model.reasons.slice(0, 1),
        ...(cached[index] ? ['kept on this device'] : []),
      ];
      label.append(radio, name, verdict, element('small', '', facts.join(' · ')));
      return label;
    }),
  );
}

const selected = () => {
  const value = document.querySelector('input[name=model]:checked')?.value;
  return state.site.models.find((model) => model.id === value);
};

async function load() {
  const model = selected();
  if (!model || state.downloading || state.answering) return;
  problem('');
  state.downloading = new AbortController();
  busy(true);
  try {
    await unload();
    const { Engine } = await import(`./${model.engine}`);
    const found = choose(model, Engine, at('device').value, await gpu());
    const files = await verifiedFiles(model, state.downloading.signal, (bytes) => {
      at('progress').value = bytes / model.bytes;
      status(`Downloading: ${megabytes(bytes)} of ${megabytes(model.bytes)}`);
    });
    at('cancel').hidden = true;
    await open(model, Engine, files, found);
  } catch (error) {
    if (error instanceof Damaged) await forget(model);
    const cancelled = error.name === 'AbortError';
    status(cancelled ? 'Download cancelled. What had arrived whole is kept.' : 'Nothing is loaded.');
    if (!cancelled) problem(error.message);
  } finally {
    state.downloading = null;
    busy(false);
    await showModels();
  }
  if (state.engine) at('question').focus();
}

// Opens a model on the chosen device; an export that WebGPU cannot run gets WebAssembly instead.
async function open(model, Engine, files, { device, message }) {
  status(`Starting ${model.format.toUpperCase()} ${model.dtype} …`);
  const engine = new Engine();
  const vendor = new URL(`${state.site.vendor}/`, location.href).href;
  try {
    await engine.load(files, model, { device, threads: threads(), vendor });
  } catch (error) {
    await engine.close();
    if (device !== 'webgpu' || !Engine.devices.includes('wasm')) throw error;
    const reason = `WebGPU failed (${error.message}): using WebAssembly, which is slower.`;
    return open(model, Engine, files, { device: 'wasm', message: reason });
  }
  Object.assign(state, { engine, model, device });
  const where = device === 'webgpu' ? 'WebGPU' : `WebAssembly, ${count(threads(), 'thread')}`;
  status(`${message} ${model.format.toUpperCase()} ${model.dtype} is ready on ${where}.`.trim());
  at('question').disabled = at('send').disabled = at('clear').disabled = false;
}

async function unload() {
  await state.engine?.close();
  state.engine = state.model = null;
  at('question').disabled = at('send').disabled = true;
}

async function ask() {
  const text = at('question').value.trim();
  if (!text || !state.engine || state.answering) return;
  problem('');
  at('question').value = '';
  state.messages.push({ role: 'user', content: text });
  show('user', text);
  const paragraph = show('assistant', '');
  const clock = new Clock();
  answering(true);
  let answer = '';
  try {
    state.last = await state.engine.answer(conversation(), settings(), (piece) => {
      answer += piece;
      paragraph.textContent = answer;
      at('speed').value = clock.tick();
      at('log').scrollTop = at('log').scrollHeight;
    });
    const { ids, count: pieces } = state.last;
    at('speed').value = clock.end(ids?.length ?? pieces);
  } catch (error) {
    problem(`The answer ended early: ${error.message}`);
  } finally {
    state.messages.push({ role: 'assistant', content: answer });
    paragraph.after(copyButton(answer));
    answering(false);
    at('question').focus();
  }
}

function stop() {
  if (state.answering) state.engine.stop();
}

function clear() {
  if (state.answering) return;
  state.messages = [];
  at('log').replaceChildren();
  at('speed').value = '';
  status('The conversation is cleared.');
  at('question').focus();
}

function conversation() {
  const system = at('system').value.trim();
  return [...(system ? [{ role: 'system', content: system }] : []), ...state.messages];
}

function settings() {
  const value = (id) => Number(at(id).value);
  return { temperature: value('temperature'), topP: value('top-p'), maxTokens: value('max-tokens') };
}

// Seconds to the first piece of text, then tokens per second; a piece is about a token.
class Clock {
  #asked = performance.now();
  #first = null;
  #pieces = 0;

  tick() {
    this.#first ??= performance.now();
    this.#pieces += 1;
    return this.#text(this.#pieces);
  }

  end(tokens) {
    return this.#first === null ? 'No answer.' : this.#text(tokens);
  }

  #text(tokens) {
    const wait = `first token ${((this.#first - this.#asked) / 1000).toFixed(1)} s`;
    const seconds = (performance.now() - this.#first) / 1000;
    return tokens > 1 && seconds > 0 ? `${wait} · ${((tokens - 1) / seconds).toFixed(1)} tokens/s` : wait;
  }
}

function show(role, text) {
  const message = element('article', `message ${role}`);
  const paragraph = element('p', '', text);
  message.append(element('h3', '', role === 'user' ? 'You' : 'Model'), paragraph);
  at('log').append(message);
  at('log').scrollTop = at('log').scrollHeight;
  return paragraph;
}

function copyButton(text) {
  const button = element('button', '', 'Copy');
  button.type = 'button';
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      status('The answer is copied.');
    } catch {
      problem('This browser does not let the page copy; select the text instead.');
    }
  });
  return button;
}

// A screen reader is told of the whole answer at its end, not of every piece.
function answering(now) {
  state.answering = now;
  at('log').setAttribute('aria-busy', String(now));
  at('stop').hidden = !now;
  at('send').hidden = now;
  at('clear').disabled = at('load').disabled = now;
}

function busy(now) {
  at('load').disabled = now;
  at('cancel').hidden = at('progress').hidden = !now;
  at('progress').value = 0;
}

const status = (text) => (at('status').textContent = text);
const problem = (text) => (at('problem').textContent = text);
const count = (number, noun) => `${number} ${noun}${number === 1 ? '' : 's'}`;

function element(name, className = '', text = '') {
  return Object.assign(document.createElement(name), { className, textContent: text });
}
