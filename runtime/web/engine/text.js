/** A model's tokenizer and chat template, from what `tritpack web` wrote of its file. */
import { Template } from "@huggingface/jinja";
import { Tokenizer } from "@huggingface/tokenizers";

export class Text {
  #tokenizer;
  #template;
  #specials;
  #starts;
  #bytes;

  /** document: a tokenizer.json, parsed. pieces: the bytes of all tokens after a table of where each starts (uint32). about: the
   * manifest's {tokens, chat_template, special_tokens, stop_ids, control_ids, bos_id}. */
  constructor(document, pieces, about) {
    this.#tokenizer = new Tokenizer(document, {});
    this.#template = about.chat_template ? new Template(about.chat_template) : null;
    this.#specials = about.special_tokens;
    this.#starts = new Uint32Array(pieces.buffer, pieces.byteOffset, about.tokens + 1);
    this.#bytes = pieces.subarray(4 * (about.tokens + 1));
    this.control = new Set(about.control_ids);
    this.stops = new Set(about.stop_ids);
    this.bos = about.bos_id;
  }

  get hasTemplate() {
    return this.#template !== null;
  }

  encode(text, addSpecial = true) {
    return this.#tokenizer.encode(text, { add_special_tokens: addSpecial }).ids;
  }

  /** The text of messages ({role, content}) as the model's template renders them. */
  render(messages) {
    if (!this.#template) throw new Error("The file has no chat template: it is a base model, which only continues text.");
    return this.#template.render({ ...this.#specials, messages, tools: null, documents: null, add_generation_prompt: true });
  }

  /** The ids of a text, or of a list of messages. */
  ids(input) {
    return typeof input === "string" ? this.encode(input) : this.encode(this.render(input), false);
  }

  /** The bytes of a token, which may be part of a character. */
  bytes(id) {
    return this.#bytes.subarray(this.#starts[id], this.#starts[id + 1]);
  }
}

/** Decoder of bytes that come in pieces: it holds back an unfinished character until its last byte has come. */
export class Utf8Stream {
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  feed(bytes) {
    return this.#decoder.decode(bytes.slice(), { stream: true });
  }

  finish() {
    return this.#decoder.decode();
  }
}
