/**
 * The engine that asks a server of the OpenAI protocol, such as `tritpack serve`.
 *
 * What the page needs of an engine:
 *   start(onProgress, key)        loads it; onProgress({done, total, text}); an Error's message is a sentence to show, and its
 *                                 `needsKey` says that an API key is asked for
 *   info()                        {name, where, chat, context, defaults, file, running, canProve}: chat is false where it only continues
 *                                 text; words.js lists what "About this file" shows of file and running
 *   generate(messages, options)   an async iterator of text
 *   stop()                        ends it soon; the iterator then ends without an error
 *   last                          {tokens, tokensPerSecond, promptTokens, stopReason} of the last answer
 *   prove()                       only with canProve: {same, rows: [[name, expected, found]]}
 */
export class HttpEngine {
  #props = {};
  #name = "";
  #key = "";
  #abort = null;
  last = null;

  async start(onProgress, key = "") {
    this.#key = key;
    onProgress({ done: 0, total: 0, text: "Asking the server for its model" });
    const props = await this.#fetch("props").catch((error) => {
      if (error.status !== 404) throw error;
      return null;
    });
    this.#props = props ? await props.json() : {};
    this.#name = this.#props.model_alias || baseName(this.#props.model_path);
    if (!this.#name) this.#name = (await (await this.#fetch("v1/models")).json()).data?.[0]?.id ?? "model";
  }

  info() {
    const settings = this.#props.default_generation_settings ?? {};
    const sampling = settings.params ?? settings;
    const file = this.#props.tritpack ?? {};
    return {
      name: this.#name,
      where: `It runs on ${location.host}. What you write is sent there and nowhere else.`,
      chat: this.#props.chat_template === undefined || this.#props.chat_template !== "",
      context: settings.n_ctx ?? file.context ?? null,
      defaults: {
        temperature: sampling.temperature ?? 0.7, top_k: sampling.top_k ?? 0, top_p: sampling.top_p ?? 1,
        min_p: sampling.min_p ?? 0, repeat_penalty: sampling.repeat_penalty ?? 1,
      },
      file,
      running: { threads: file.threads, memory: file.memory_bytes, kv_type: file.kv_type },
      canProve: false,
    };
  }

  async *generate(messages, options) {
    this.#abort = new AbortController();
    const begin = performance.now();
    const chat = this.info().chat;
    const { max_tokens, ...sampling } = options;
    const question = chat ? { messages } : { prompt: messages.map((message) => message.content).join("") };
    const body = {
      model: this.#name, ...question, ...sampling, ...(max_tokens === null ? {} : { max_tokens }),
      stream: true, stream_options: { include_usage: true },
    };
    let pieces = 0, first = 0, end = {};
    this.last = null;
    try {
      const answer = await this.#fetch(chat ? "v1/chat/completions" : "v1/completions", body);
      for await (const chunk of events(answer.body)) {
        if (chunk.error) throw new Error(chunk.error.message ?? String(chunk.error));
        const choice = chunk.choices?.[0];
        const text = choice?.delta?.content ?? choice?.text ?? "";
        end = { reason: choice?.finish_reason ?? end.reason, usage: chunk.usage ?? end.usage, timings: chunk.timings ?? end.timings };
        if (!text) continue;
        pieces += 1;
        first ||= performance.now();
        yield text;
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
      end.reason = "stopped";
    } finally {
      const seconds = (performance.now() - (first || begin)) / 1000;
      const tokens = end.usage?.completion_tokens ?? pieces;
      this.last = {
        tokens,
        tokensPerSecond: end.timings?.predicted_per_second ?? (seconds > 0 ? Math.max(tokens - 1, 0) / seconds : 0),
        promptTokens: end.usage?.prompt_tokens ?? null,
        stopReason: end.reason ?? "stopped",
      };
      this.#abort.abort(); // where the caller has left the loop
    }
  }

  stop() {
    this.#abort?.abort();
  }

  async #fetch(path, body) {
    const headers = this.#key ? { Authorization: `Bearer ${this.#key}` } : {};
    let answer;
    try {
      answer = await fetch(path, body === undefined ? { headers } : {
        method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body), signal: this.#abort.signal,
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error(`The server at ${location.host} does not answer. Is it still running?`);
    }
    if (answer.ok) return answer;
    const document = await answer.json().catch(() => ({}));
    const error = new Error(document.error?.message ?? `The server answered ${answer.status} ${answer.statusText}.`);
    throw Object.assign(error, { status: answer.status, needsKey: answer.status === 401 });
  }
}

function baseName(path) {
  return (path ?? "").split(/[\\/]/).pop().replace(/\.gguf$/i, "");
}

/** The JSON documents of a stream of server-sent events, up to [DONE]. */
async function* events(stream) {
  let rest = "";
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    rest += value ?? "";
    const lines = rest.split(/\r?\n/);
    rest = done ? "" : lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
    if (done) return;
  }
}
