"""The ladder of proof: structure, weights, kernels, tokenizer, logits, text, generation, perplexity."""

from tritpack.converter.verify.ladder import LEVELS, RUNGS, verify

__all__ = ["LEVELS", "RUNGS", "verify"]
