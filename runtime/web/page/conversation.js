/** The messages and settings of a chat, which the browser keeps for this page and model. */
const empty = () => ({ messages: [], system: "", sampling: {} });

export class Conversation {
  #key;

  constructor(name) {
    this.#key = `tritpack ${location.pathname} ${name}`;
    Object.assign(this, empty());
    try {
      Object.assign(this, JSON.parse(localStorage.getItem(this.#key) ?? "{}"));
    } catch {
      // storage that is refused or holds something else: a new chat
    }
    if (!Array.isArray(this.messages)) Object.assign(this, empty());
  }

  save() {
    try {
      localStorage.setItem(this.#key, JSON.stringify({ messages: this.messages, system: this.system, sampling: this.sampling }));
    } catch {
      // the chat goes on, it is only not kept
    }
  }

  clear() {
    this.messages = [];
    this.save();
  }

  /** What the model gets: the messages before the answer, the system prompt first. A question of a chat that got no answer is left
   * out, because templates want the turns to alternate. */
  request(chat) {
    const empty = (message) => message?.role === "assistant" && !message.content;
    const messages = this.messages
      .filter((message, place) => !empty(message) && !(chat && empty(this.messages[place + 1])))
      .map(({ role, content }) => ({ role, content }));
    return chat && this.system.trim() ? [{ role: "system", content: this.system.trim() }, ...messages] : messages;
  }
}
