/** From logits to the next token, as runtime/sampling.py does it: the same seed and logits give the same tokens.
 *
 * Its order is that of llama.cpp: repetition penalty, top-k, top-p, min-p, temperature, draw. Sums are added in numpy's order.
 * Only exp may differ from numpy's in the last bit, which is not the same on all CPUs there either; a draw notices that about
 * once in 10^12 tokens. */
import { Random } from "./random.js";

const RULES = {
  temperature: [(v) => v >= 0, "0 or more"],
  top_k: [(v) => v >= 0 && Number.isInteger(v), "a whole number, 0 (off) or more"],
  top_p: [(v) => v > 0 && v <= 1, "above 0 and at most 1"],
  min_p: [(v) => v >= 0 && v <= 1, "between 0 and 1"],
  repeat_penalty: [(v) => v > 0, "above 0"],
  seed: [(v) => v >= 0 && Number.isInteger(v), "a whole number, 0 or more"],
};
const GREEDY = { temperature: 0, top_k: 0, top_p: 1, min_p: 0, repeat_penalty: 1, seed: 0 };

export class Sampler {
  #random;

  /** params: any of those of GREEDY; the others are off. Throws an Error for an impossible value. */
  constructor(params = {}) {
    this.params = { ...GREEDY };
    for (const [name, [good, wanted]] of Object.entries(RULES)) {
      const value = params[name] ?? GREEDY[name];
      if (!Number.isFinite(value) || !good(value)) throw new Error(`${name} must be ${wanted}, not ${value}.`);
      this.params[name] = value;
    }
    this.#random = new Random(this.params.seed);
  }

  /** The next token id. logits: Float32Array (vocab), which is changed; history: ids so far, for the penalty. */
  next(logits, history) {
    let highest = -Infinity;
    for (const value of logits) {
      if (Number.isNaN(value)) highest = NaN;
      else if (value > highest) highest = value;
    }
    if (!Number.isFinite(highest)) {
      throw new Error("The model gave logits that are not numbers, so no token can be chosen: the file is likely damaged.");
    }
    if (this.params.repeat_penalty !== 1) penalise(logits, history, this.params.repeat_penalty);
    return this.params.temperature === 0 ? likeliest(logits) : this.#draw(logits);
  }

  #draw(scores) {
    const { top_k, top_p, min_p, temperature } = this.params;
    let ids = bestFirst(scores, top_k);
    let kept = Float64Array.from(ids, (id) => scores[id]);
    if (top_p < 1) {
      const reached = cumulated(softmax(kept));
      let count = 0;
      while (count < reached.length && reached[count] < top_p) count += 1;
      kept = kept.subarray(0, count + 1);
    }
    if (min_p > 0) {
      const floor = Math.log(min_p), best = kept[0];
      kept = kept.subarray(0, kept.reduce((count, score) => count + (score - best >= floor), 0));
    }
    const best = kept[0];
    const reached = cumulated(softmax(kept.map((score) => (score - best) / temperature)));
    const drawn = this.#random.next() * reached[reached.length - 1];
    let place = 0;
    while (place < reached.length && reached[place] <= drawn) place += 1;
    return ids[Math.min(place, kept.length - 1)];
  }
}

/** The lowest id among equals. */
export function likeliest(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i += 1) if (logits[i] > logits[best]) best = i;
  return best;
}

function penalise(scores, history, repeatPenalty) {
  const penalty = Math.fround(repeatPenalty);
  for (const id of new Set(history)) scores[id] = scores[id] > 0 ? scores[id] / penalty : scores[id] * penalty;
}

/** Ids by falling score, the lowest of equals first; only k of them unless k is 0. */
function bestFirst(scores, k) {
  const limited = k > 0 && k < scores.length;
  const least = limited ? Float32Array.from(scores).sort()[scores.length - k] : -Infinity;
  // A double holds the place of a score among all floats (32 bits) and its id (21 bits), so one sort of numbers does.
  const keys = new Float64Array(scores.length), bits = new Uint32Array(1), value = new Float32Array(bits.buffer);
  let count = 0;
  for (let id = 0; id < scores.length; id += 1) {
    if (!(scores[id] >= least)) continue;
    value[0] = scores[id] + 0; // -0 is 0
    const rising = bits[0] >>> 31 ? ~bits[0] >>> 0 : (bits[0] | 0x80000000) >>> 0;
    keys[count] = (0xffffffff - rising) * 2 ** 21 + id;
    count += 1;
  }
  const sorted = keys.subarray(0, count).sort().subarray(0, limited ? k : count);
  return Uint32Array.from(sorted, (key) => key % 2 ** 21);
}

/** Probabilities of values whose largest comes first. */
function softmax(values) {
  const powers = values.map((value) => Math.exp(value - values[0]));
  const total = sum(powers, 0, powers.length);
  return powers.map((power) => power / total);
}

function cumulated(values) {
  let total = 0;
  return values.map((value) => (total += value));
}

/** numpy's sum of `count` doubles from `at` on: pairs of halves, down to runs of 128 that eight sums share. */
function sum(values, at, count) {
  if (count < 8) {
    let total = 0;
    for (let i = 0; i < count; i += 1) total += values[at + i];
    return total;
  }
  if (count > 128) {
    const half = (count >> 1) - ((count >> 1) % 8);
    return sum(values, at, half) + sum(values, at + half, count - half);
  }
  const r = values.slice(at, at + 8);
  let i = 8;
  for (; i < count - (count % 8); i += 8) for (let j = 0; j < 8; j += 1) r[j] += values[at + i + j];
  let total = r[0] + r[1] + (r[2] + r[3]) + (r[4] + r[5] + (r[6] + r[7]));
  for (; i < count; i += 1) total += values[at + i];
  return total;
}
