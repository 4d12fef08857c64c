/** Numbers and facts as people read them. */
const whole = new Intl.NumberFormat("en");

export const count = (n) => whole.format(n);
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

export function bytes(n) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let place = 0;
  for (; n >= 999.5 && place + 1 < units.length; place += 1) n /= 1000;
  return place === 0 ? `${n} bytes` : `${n < 9.995 ? n.toFixed(2) : n < 99.95 ? n.toFixed(1) : Math.round(n)} ${units[place]}`;
}

export const speed = (perSecond) => (perSecond < 10 ? perSecond.toFixed(2) : perSecond < 100 ? perSecond.toFixed(1) : count(Math.round(perSecond)));

/** What "About this file" lists: [name, value] pairs of what is known of a file and of how it runs. */
export function facts(info) {
  const { file, running } = info;
  const rows = [
    ["File", file.file],
    ["Size", file.size && bytes(file.size)],
    ["Layout", file.layout && `${file.layout}${file.ternary_bits ? `, ${Number(file.ternary_bits.toFixed(2))} bits per ternary weight` : ""}`],
    ["Embedding", file.embedding],
    ["Parameters", file.parameters && count(file.parameters)],
    ["SHA-256", file.sha256],
    ["Attestation", file.attestation === undefined ? undefined : attestation(file.attestation)],
    ["Context", info.context && plural(info.context, "token")],
    ["Keys and values", running.kv_type],
    ["Threads", running.threads && (running.why ? `${running.threads}: ${running.why}` : String(running.threads))],
    ["Memory", running.memory && bytes(running.memory)],
    ["Kernels", running.kernels?.join(", ")],
    ["Written by", file.version && `tritpack ${file.version}`],
  ];
  return rows.filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== 0);
}

function attestation(record) {
  if (!record) return "There is none beside the file.";
  const said = record.verdict ? `verdict ${record.verdict}` : "present";
  return `${said}${record.source ? `, of ${record.source}` : ""}${record.matches === false ? "; it is of another file" : ""}`;
}
