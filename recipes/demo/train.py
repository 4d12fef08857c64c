"""Train the demonstration model: a tiny BitNet b1.58 (W1.58A8) language model, from scratch, on a CPU.

    python train.py TEXTS --out checkpoint --minutes 60

TEXTS is a folder of .txt files in UTF-8: paragraphs separated by an empty line, stories or chapters separated by a
line that holds only "* * *". The script trains a byte-level BPE tokenizer on them, then the model for --minutes of
wall time (the learning rate follows the clock, so a slower machine takes fewer steps but still ends with a decayed
rate), and writes a checkpoint in the on-disk layout of microsoft/bitnet-b1.58-2B-4T: config.json,
generation_config.json, the tokenizer's files and a model.safetensors whose linear weights are packed four ternary
codes to a byte. Matrices are trained with Muon, the embedding and the norms with AdamW.

Numerics in training are those of inference: weights are absmean ternary codes times a bfloat16 scale, activations are
int8 codes per token, embeddings and norms are rounded to bfloat16 in the forward pass; gradients pass straight through
every rounding. Products of integer codes run in bfloat16, where the operands are exact.

It refuses: an empty folder, texts too short to fill one batch, and shapes that cannot be packed (row lengths that are
not multiples of 256). It does not download text, resume, or fine-tune.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NAMES = "begin_of_text end_of_text reserved_special_token_0 reserved_special_token_1 finetune_right_pad_id"
NAMES += " reserved_special_token_2 start_header_id end_header_id eom_id eot_id"
SPECIALS = [f"<|{name}|>" for name in NAMES.split()] + [f"<|reserved_special_token_{i}|>" for i in range(3, 9)]
BOS, EOS, EOT = 0, 1, 9  # offsets from the end of the base vocabulary
CHAT_TEMPLATE = (
    "{% for m in messages %}{% set line = m['role'] | capitalize + ': ' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set line = bos_token + line %}{% endif %}{{ line }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
TOPICS = "king queen prince princess boy girl fox wolf giant witch bear bird dragon fisherman soldier cat"


@dataclass
class Config:
    vocab: int = 2048
    hidden: int = 256
    ffn: int = 1536
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    positions: int = 1024
    theta: float = 500000.0
    eps: float = 1e-5


def ternary(w: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in -1, 0, 1 and the absmean that goes with them, both in float32."""
    mean = w.abs().mean().clamp_min(1e-5)
    return (w * (1.0 / mean)).round().clamp_(-1, 1), mean


class BitLinearFn(torch.autograd.Function):
    """Several ternary linears on one int8-quantised input; gradients go straight through both roundings."""

    @staticmethod
    def forward(ctx, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        peak = x.abs().amax(-1, keepdim=True).clamp_min(1e-5)
        q = (x * (127.0 / peak)).round().bfloat16()
        step = peak / 127.0
        codes, means = zip(*((c.bfloat16(), m.bfloat16().float()) for c, m in map(ternary, weights)), strict=True)
        ctx.save_for_backward(q, step, *codes, *means)
        return tuple((q @ c.t()).float() * (step * m) for c, m in zip(codes, means, strict=True))

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, ...]:
        q, step, *rest = ctx.saved_tensors
        half = len(rest) // 2
        grad_x, grad_w = None, []
        for g, c, m in zip(grads, rest[:half], rest[half:], strict=True):
            part = ((g * m).bfloat16() @ c).float()
            grad_x = part if grad_x is None else grad_x + part
            grad_w.append(((g * step).bfloat16().t() @ q).float())
        return grad_x, *grad_w


def bf16(x: Tensor) -> Tensor:
    """The value as it will be stored, with a straight-through gradient."""
    return x.bfloat16().float()


class Norm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * bf16(self.weight)


class Block(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        q, kv, out = c.heads * c.head_dim, c.kv_heads * c.head_dim, (2 * c.layers) ** -0.5
        shapes = {"q": (q, c.hidden), "k": (kv, c.hidden), "v": (kv, c.hidden), "o": (c.hidden, q)}
        shapes |= {"gate": (c.ffn, c.hidden), "up": (c.ffn, c.hidden), "down": (c.hidden, c.ffn)}
        for name, (rows, cols) in shapes.items():
            std = cols**-0.5 * (out if name in ("o", "down") else 1.0)
            self.register_parameter(name, nn.Parameter(torch.randn(rows, cols) * std))
        self.norm1, self.norm2 = Norm(c.hidden, c.eps), Norm(c.hidden, c.eps)
        self.sub1, self.sub2 = Norm(q, c.eps), Norm(c.ffn, c.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, batch: int) -> Tensor:
        c = self.c
        q, k, v = BitLinearFn.apply(self.norm1(x), self.q, self.k, self.v)
        q, k, v = (t.view(batch, -1, t.shape[-1] // c.head_dim, c.head_dim).transpose(1, 2) for t in (q, k, v))
        q, k = (t * cos + torch.cat((-t[..., c.head_dim // 2 :], t[..., : c.head_dim // 2]), -1) * sin for t in (q, k))
        k, v = (t.repeat_interleave(c.heads // c.kv_heads, 1) for t in (k, v))
        a = F.scaled_dot_product_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), is_causal=True)
        a = a.transpose(1, 2).reshape(x.shape[0], -1).float()
        x = x + BitLinearFn.apply(self.sub1(a), self.o)[0]
        gate, up = BitLinearFn.apply(self.norm2(x), self.gate, self.up)
        return x + BitLinearFn.apply(self.sub2(F.relu(gate).square() * up), self.down)[0]


class Model(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        if c.hidden % 256 or c.ffn % 256 or c.heads * c.head_dim % 256 or c.kv_heads * c.head_dim % 4:
            raise SystemExit("row lengths must be multiples of 256")
        self.c = c
        self.embed = nn.Parameter(torch.randn(c.vocab, c.hidden) * 0.05)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = Norm(c.hidden, c.eps)
        inv = c.theta ** -(torch.arange(0, c.head_dim, 2).float() / c.head_dim)
        angle = (torch.arange(c.positions).float()[:, None] * inv).repeat(1, 2)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        batch, length = ids.shape
        x = F.embedding(ids.reshape(-1), bf16(self.embed))
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length], batch)
        logits = self.norm(x).bfloat16() @ self.embed.bfloat16().t()
        return F.cross_entropy(logits.float(), targets.reshape(-1), ignore_index=-100)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by five Newton-Schulz steps (Jordan et al., 2024); for matrices."""

    def __init__(self, params: list[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.95, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - group["momentum"])
                x = p.grad.lerp(average, group["momentum"])
                x, tall = (x / (x.norm() + 1e-7)).bfloat16(), p.shape[0] > p.shape[1]
                x = x.t().contiguous() if tall else x
                for _ in range(5):
                    a = x @ x.t()
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                x = x.t() if tall else x
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(x.float(), alpha=-group["lr"] * 0.35 * max(p.shape) ** 0.5)


def train_tokenizer(texts: list[str], vocab: int) -> Tokenizer:
    """Byte-level BPE in the Llama-3 arrangement: base vocabulary first, special tokens after it."""
    base = vocab - len(SPECIALS)
    tok = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tok.pre_tokenizer = pre_tokenizers.Sequence([split, byte])
    tok.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=base, initial_alphabet=alphabet, show_progress=False))
    if tok.get_vocab_size() != base:
        raise SystemExit(f"the texts are too small for {base} tokens")
    doc = json.loads(tok.to_str())
    doc["model"]["ignore_merges"] = True
    tok = Tokenizer.from_str(json.dumps(doc))
    tok.add_special_tokens(SPECIALS)
    bos = SPECIALS[BOS]
    template = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tok.token_to_id(bos))]
    )
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tok


def pack(codes: Tensor) -> Tensor:
    """Rows r, r + N/4, r + 2N/4 and r + 3N/4 in one byte, from the low bits up; code = value + 1."""
    parts = (codes + 1).to(torch.uint8).chunk(4, 0)
    return (parts[0] | parts[1] << 2 | parts[2] << 4 | parts[3] << 6).contiguous()


def save(model: Model, tok: Tokenizer, out: Path) -> None:
    """Write the whole checkpoint, each file to a temporary name first."""
    c, tensors = model.c, {}
    tensors["model.embed_tokens.weight"] = model.embed.detach().bfloat16()
    tensors["model.norm.weight"] = model.norm.weight.detach().bfloat16()
    for i, block in enumerate(model.blocks):
        at = f"model.layers.{i}."
        for name in ("q", "k", "v", "o", "gate", "up", "down"):
            full = f"{at}{'self_attn' if len(name) == 1 else 'mlp'}.{name}_proj.weight"
            codes, mean = ternary(getattr(block, name).detach())
            tensors[full], tensors[full + "_scale"] = pack(codes), mean.bfloat16().reshape(1)
        norms = {"input_layernorm": "norm1", "post_attention_layernorm": "norm2"}
        norms |= {"self_attn.attn_sub_norm": "sub1", "mlp.ffn_sub_norm": "sub2"}
        for full, name in norms.items():
            tensors[f"{at}{full}.weight"] = getattr(block, name).weight.detach().bfloat16()
    base = c.vocab - len(SPECIALS)
    ends = {"bos_token": SPECIALS[BOS], "eos_token": SPECIALS[EOS]}
    ids = {"bos_token_id": base + BOS, "eos_token_id": base + EOS}
    config = {"architectures": ["BitNetForCausalLM"], **ids, "hidden_act": "relu2", "hidden_size": c.hidden}
    config |= {"initializer_range": 0.02, "intermediate_size": c.ffn, "max_position_embeddings": c.positions}
    config |= {"model_type": "bitnet", "rms_norm_eps": c.eps, "num_attention_heads": c.heads}
    config |= {"num_hidden_layers": c.layers, "num_key_value_heads": c.kv_heads, "rope_theta": c.theta}
    config |= {"tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": c.vocab}
    how = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
    config |= {"quantization_config": how}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    tokenizer_config = {
        "added_tokens_decoder": {str(base + i): {"content": s, **flags} for i, s in enumerate(SPECIALS)}
    }
    tokenizer_config |= {**ends, "clean_up_tokenization_spaces": True, "chat_template": CHAT_TEMPLATE}
    tokenizer_config |= {"model_input_names": ["input_ids", "attention_mask"], "model_max_length": int(1e30)}
    tokenizer_config |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    generation = {"bos_token_id": base + BOS, "do_sample": True, "eos_token_id": [base + EOS, base + EOT]}
    generation |= {"max_length": c.positions, "temperature": 0.6, "top_p": 0.9, "transformers_version": "4.51.3"}
    out.mkdir(parents=True, exist_ok=True)
    jsons = {"config": config, "generation_config": generation, "tokenizer_config": tokenizer_config}
    for name, value in (jsons | {"special_tokens_map": ends}).items():
        (out / f"{name}.json.tmp").write_text(json.dumps(value, indent=2) + "\n")
    (out / "tokenizer.json.tmp").write_text(tok.to_str() + "\n")
    save_file(tensors, out / "model.safetensors.tmp", metadata={"format": "pt"})
    for temporary in sorted(out.glob("*.tmp")):
        os.replace(temporary, temporary.with_suffix(""))


class Windows:
    """Random training windows: BOS, then text from a paragraph's start or from anywhere; now and then a chat turn."""

    def __init__(self, stories: list[str], tok: Tokenizer, base: int, seed: int) -> None:
        self.tok, self.base, self.rng = tok, base, random.Random(seed)
        self.paragraphs: list[tuple[int, str]] = []
        ids: list[int] = []
        for story in stories:
            blocks = story.split("\n\n")
            for i, block in enumerate(blocks):
                self.paragraphs.append((len(ids), block))
                block += "\n\n" if i + 1 < len(blocks) else ""
                ids += tok.encode(block, add_special_tokens=False).ids
            ids += [base + EOS, base + BOS]
        self.ids = torch.tensor(ids)

    def encode(self, text: str) -> list[int]:
        return self.tok.encode(text, add_special_tokens=False).ids

    def chat(self, length: int) -> list[int] | None:
        text = self.rng.choice(self.paragraphs)[1]
        if not 150 < len(text) < 4 * length or not text[0].isupper():
            return None
        found = [t for t in TOPICS.split() if f" {t}" in text]
        ask = f"Tell me a story about a {self.rng.choice(found)}." if found else "Tell me a story."
        ask = self.rng.choice([ask, ask, "Tell me a story."])
        eot = self.base + EOT
        ids = [self.base + BOS, *self.encode(f"User: {ask}"), eot, *self.encode("Assistant: "), *self.encode(text), eot]
        return ids[: length + 1] + [-100] * (length + 1 - len(ids))

    def one(self, length: int) -> list[int]:
        if self.rng.random() < 0.06 and (ids := self.chat(length)):
            return ids
        if self.rng.random() < 0.5:
            start = self.rng.choice(self.paragraphs)[0]
        else:
            start = self.rng.randrange(len(self.ids) - length)
        start = min(start, len(self.ids) - length)
        return [self.base + BOS, *self.ids[start : start + length].tolist()]

    def batch(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        t = torch.tensor([self.one(length) for _ in range(rows)])
        return t[:, :-1].clamp_min(0).contiguous(), t[:, 1:].contiguous()


def read_stories(folder: Path) -> tuple[list[str], str]:
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise SystemExit(f"no .txt files in {folder}")
    texts = [p.read_text(encoding="utf-8") for p in paths]
    stories = [s.strip() for text in texts for s in text.split("\n* * *\n")]
    return [s for s in stories if len(s) > 300], hashlib.sha256("".join(texts).encode()).hexdigest()


def main() -> None:
    ap = argparse.ArgumentParser(description="Train the demonstration model.")
    ap.add_argument("texts", type=Path)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--minutes", type=float, default=60.0)
    ap.add_argument("--snapshots", type=Path, help="also write a checkpoint here every --every minutes")
    ap.add_argument("--every", type=float, default=10.0)
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--rows", type=int, default=16, help="windows of 256 tokens per step")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--compile", action="store_true")
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    c = Config()
    base = c.vocab - len(SPECIALS)
    stories, digest = read_stories(args.texts)
    random.Random(args.seed).shuffle(stories)
    tok = train_tokenizer(stories, c.vocab)
    cut = max(1, len(stories) // 60)
    valid, data = Windows(stories[:cut], tok, base, 0), Windows(stories[cut:], tok, base, args.seed)
    if min(len(valid.ids), len(data.ids)) < 4096:
        raise SystemExit("the texts are too short")
    usable = len(valid.ids) // 256 * 256
    fixed = torch.cat((torch.full((usable // 256, 1), base + BOS), valid.ids[:usable].view(-1, 256)), 1)[:192]

    model = Model(c)
    count = sum(p.numel() for p in model.parameters())
    print(f"parameters {count}, training tokens {len(data.ids)}, validation tokens {fixed[:, 1:].numel()}", flush=True)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n != "embed"]
    others = [p for n, p in model.named_parameters() if p.ndim == 1 or n == "embed"]
    opts = [torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]
    opts.append(Muon(matrices, lr=args.lr))
    step_fn = torch.compile(model, dynamic=False) if args.compile else model

    @torch.no_grad()
    def validate() -> float:
        losses = [model(part[:, :-1], part[:, 1:]).item() * len(part) for part in fixed.split(16)]
        return sum(losses) / len(fixed)

    begun, steps, seen, next_log, next_snap, run = time.time(), 0, 0, 0.0, args.every, math.nan
    while (done := (time.time() - begun) / 60 / args.minutes) < 1:
        lr = args.lr * min(1.0, (steps + 1) / 100) * max(1e-3, 1 - done)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = lr
        opts[1].param_groups[0]["weight_decay"] = 0.1 if done < 0.6 else 0.0
        long = done > 0.8  # the last fifth sees windows twice as long, so that positions past 256 are trained too
        ids, targets = data.batch(args.rows // 2 if long else args.rows, 512 if long else 256)
        loss = step_fn(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        steps, seen = steps + 1, seen + ids.numel()
        run = loss.item() if math.isnan(run) else 0.98 * run + 0.02 * loss.item()
        minutes = (time.time() - begun) / 60
        if minutes >= next_log:
            next_log = minutes + (0.25 if minutes < 2 else 2.0)
            speed = f"{seen / minutes / 60:.0f} tok/s"
            print(f"{minutes:6.2f} min {steps} steps train {run:.4f} valid {validate():.4f} {speed}", flush=True)
        if args.snapshots and minutes >= next_snap:
            next_snap += args.every
            save(model, tok, args.snapshots)
    save(model, tok, args.out)
    facts = {"minutes": args.minutes, "steps": steps, "tokens_seen": seen, "parameters": count, "seed": args.seed}
    facts |= {"validation_loss": round(validate(), 4), "training_tokens": len(data.ids), "texts_sha256": digest}
    (args.out.parent / f"{args.out.name}.facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(facts, flush=True)


if __name__ == "__main__":
    main()
