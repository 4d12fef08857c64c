/** numpy's Generator(PCG64(seed)).random(), bit for bit: SeedSequence (M. E. O'Neill's seed_seq_fe128) and PCG-XSL-RR-128/64. */
const WORD = 0xffffffffn, LONG = (1n << 64n) - 1n, HUGE = (1n << 128n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;
const POOL = 4;

/** Eight uint32 of SeedSequence(seed).generate_state, seed being a whole number of any size. */
function seedWords(seed) {
  const entropy = [];
  for (let rest = BigInt(seed); rest > 0n || entropy.length === 0; rest >>= 32n) entropy.push(Number(rest & WORD));
  let constant = 0x43b0d7e5;
  const hash = (value) => {
    value ^= constant;
    constant = Math.imul(constant, 0x931e8875);
    value = Math.imul(value, constant);
    return value ^ (value >>> 16);
  };
  const mix = (x, y) => {
    const mixed = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) | 0;
    return mixed ^ (mixed >>> 16);
  };
  const pool = Array.from({ length: POOL }, (_, i) => hash(entropy[i] ?? 0));
  for (let from = 0; from < POOL; from += 1)
    for (let to = 0; to < POOL; to += 1) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  for (const word of entropy.slice(POOL)) for (let to = 0; to < POOL; to += 1) pool[to] = mix(pool[to], hash(word));
  constant = 0x8b51f9dd;
  return Array.from({ length: 8 }, (_, i) => {
    let value = pool[i % POOL] ^ constant;
    constant = Math.imul(constant, 0x58f38ded);
    value = Math.imul(value, constant);
    return (value ^ (value >>> 16)) >>> 0;
  });
}

export class Random {
  #state;
  #increment;

  constructor(seed) {
    const words = seedWords(seed).map(BigInt);
    const [high, low, first, second] = [0, 2, 4, 6].map((i) => words[i] | (words[i + 1] << 32n));
    this.#increment = (((first << 64n) | second) << 1n | 1n) & HUGE;
    this.#state = 0n;
    this.#step();
    this.#state = (this.#state + ((high << 64n) | low)) & HUGE;
    this.#step();
  }

  /** The next double of [0, 1). */
  next() {
    this.#step();
    const mixed = (this.#state >> 64n) ^ (this.#state & LONG), by = this.#state >> 122n;
    const rotated = ((mixed >> by) | (mixed << (64n - by))) & LONG;
    return Number(rotated >> 11n) / 2 ** 53;
  }

  #step() {
    this.#state = (this.#state * MULTIPLIER + this.#increment) & HUGE;
  }
}
