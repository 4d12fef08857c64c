/** A message of a chat. */
export interface Message {
  role: "system" | "user" | "assistant" | (string & {});
  content: string;
}

export interface LoadOptions {
  /** The address of model.json, which `tritpack web` wrote; needed for a Blob. */
  manifest?: string | URL;
  /** At most this many threads; all cores by default, one where the page is not cross-origin isolated. */
  threads?: number;
  /** Called while the model is read; total is 0 where nothing is counted. */
  onProgress?: (progress: { done: number; total: number; text: string }) => void;
}

/** How tokens are chosen; the defaults are greedy, whatever the checkpoint says (Info.sampling has that). */
export interface Sampling {
  temperature?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  repeat_penalty?: number;
  /** The same seed gives the text that `tritpack generate --seed` gives. */
  seed?: number;
}

export interface GenerateOptions extends Sampling {
  /** null, the default, runs until the model ends or the context is full. */
  max_tokens?: number | null;
}

export interface Generation {
  ids: number[];
  stopReason: "eos" | "length" | "context" | "stopped";
  tokens: number;
  promptTokens: number;
  tokensPerSecond: number;
  promptTokensPerSecond: number;
}

export interface Info {
  name: string;
  /** Of the GGUF file: name, size, SHA-256, layout, attestation. */
  file: Record<string, unknown>;
  context: number;
  /** Whether it has a chat template. */
  chat: boolean;
  sampling: Sampling;
  threads: number;
  /** Why there are no more threads, if so. */
  why?: string;
  kvType: "f32" | "i16";
  /** Bytes of the WebAssembly memory, now and when it was reserved. */
  memory: number;
  reserved: number;
  /** Symbols of the kernels that have run. */
  kernels: string[];
}

export interface Proof {
  expected: { text: string; prompt: number[]; greedy: number[]; sha256: string };
  found: { greedy: number[]; sha256: string };
  /** The ids of the golden text here, to compare with expected.prompt. */
  tokenized: number[];
}

export class Tritpack {
  private constructor();
  info: Info;
  /**
   * Loads a model. source: the folder that `tritpack web` wrote, or its model.json; or the GGUF file itself as a Blob, together
   * with `manifest` (not a set of files, nor a file whose norms are not float32). Rejects with an Error whose message is a sentence.
   */
  static load(source: string | URL | Blob, options?: LoadOptions): Promise<Tritpack>;
  /** The ids of a text, with the specials that the tokenizer adds, or of a chat as the model's template renders it. */
  tokenize(input: string | Message[]): Promise<number[]>;
  /** Continues a text, a chat or ids. Leaving the loop early stops it. */
  generate(input: string | Message[] | number[], options?: GenerateOptions): AsyncGenerator<string, Generation, void>;
  /** The logits of every position, (tokens, vocabulary), row by row. */
  logits(tokens: number[]): Promise<Float32Array>;
  /** Runs the golden prompt, to compare its tokens and logits with those of the native library. */
  prove(): Promise<Proof>;
  /**
   * Ends all generations asked for so far, also those that wait for their turn. One that runs ends within a few layers of the
   * model, while it reads its prompt as while it writes.
   */
  stop(): void;
  /** Reads `info` again: memory and kernels change while the model runs. */
  refresh(): Promise<Info>;
  /** Ends the worker and frees the memory. What waits, or is asked afterwards, is rejected. */
  close(): void;
}
