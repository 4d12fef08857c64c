"""Perplexity of heldout.txt under the checkpoint, computed by transformers in float32; the result goes to demo.json.

    python perplexity.py [--training FACTS]

The text's tokens are cut into windows of 256 tokens, each a begin-of-text token and up to 255 tokens of text, without
overlap. Every text token is scored exactly once, given the tokens before it in its window. The result is
exp(mean negative log-likelihood). FACTS is the .facts.json that train.py wrote; without it the training facts already
in demo.json are kept. Needs torch, transformers and accelerate.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from pathlib import Path

import torch
import transformers

HERE = Path(__file__).resolve().parent
WINDOW = 256


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@torch.no_grad()
def score(model: torch.nn.Module, ids: list[int], bos: int) -> float:
    """The sum of the negative log-likelihoods of ids, in nats."""
    total = 0.0
    for start in range(0, len(ids), WINDOW - 1):
        part = torch.tensor([bos, *ids[start : start + WINDOW - 1]])
        logits = model(part[None]).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, part[1:], reduction="sum").item()
    return total


def main() -> None:
    ap = argparse.ArgumentParser(description="Perplexity of the held-out text.")
    ap.add_argument("--training", type=Path, help="the facts file of the training run")
    args = ap.parse_args()
    checkpoint, text, out = HERE / "checkpoint", HERE / "heldout.txt", HERE / "demo.json"
    tok = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    torch.nn.Module.float(model)  # the loader leaves embeddings and norms in bfloat16, and model.float() refuses
    model.eval()
    ids = tok(text.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    nll = score(model, ids, tok.bos_token_id) / len(ids)
    result = {
        "perplexity": round(math.exp(nll), 6),
        "tokens_scored": len(ids),
        "window": WINDOW,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "dtype": "float32",
        "heldout_sha256": sha256(text),
        "model_sha256": sha256(checkpoint / "model.safetensors"),
    }
    if args.training:
        result["training"] = json.loads(args.training.read_text())
    elif out.exists():
        result["training"] = json.loads(out.read_text()).get("training")
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
