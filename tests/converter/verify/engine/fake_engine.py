"""A small llama-server, llama-perplexity and llama-completion over our own runtime, which can be wrong on purpose.

`install` writes a program that runs this file. Its options --habit (see HABITS) and --form (new or old answers) are
given by --engine-arg; all others are those of llama.cpp.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

HABITS = ("right", "float", "silu", "nan-batch", "crash", "refuse")
HELP = {
    "llama-server": "--port PORT\n--host HOST\n-np, --parallel N\n-t, --threads N\n-c, --ctx-size N",
    "llama-perplexity": "--kl-divergence-base FNAME\n-f, --file F\n-c, --ctx-size N\n-b, --batch-size N\n"
    "-ub, --ubatch-size N\n--chunks N",
    "llama-completion": "-n, --predict N\n-p, --prompt P\n-no-cnv\n-t, --threads N",
}


def install(folder: Path, name: str, repository: Path) -> Path:
    """Write an executable program of that name, one of HELP's keys."""
    program, start = folder / name, "from tests.converter.verify.engine.fake_engine import main; main()"
    program.write_text(  # a shell answers what costs no start of Python
        f"#!/bin/sh\ncase $1 in\n--help) echo '{HELP[name]}'; exit;;\n"
        "--version) echo 'version: 1 (fake)'; exit;;\nesac\n"
        f"PYTHONPATH='{repository}' exec '{sys.executable}' -c '{start}' {name} \"$@\"\n"
    )
    program.chmod(0o755)
    return program


def main() -> None:
    """Run as the program that this is called."""
    name = sys.argv.pop(1)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("-m", "--host", "--kl-divergence-base", "-f", "-p"):
        parser.add_argument(option)
    for option in ("--port", "-np", "-t", "-c", "-b", "-ub", "--chunks", "-n"):
        parser.add_argument(option, type=int, default=1)
    parser.add_argument("--habit", choices=HABITS, default="right")
    parser.add_argument("--form", choices=("new", "old"), default="new")
    options = parser.parse_args([word for word in sys.argv[1:] if word != "-no-cnv"])
    if options.habit == "refuse":
        sys.exit("error loading model: tensor 'blk.0.attn_q.weight' has invalid ggml type 36")
    {"llama-server": serve, "llama-perplexity": dump, "llama-completion": complete}[name](options)


class Engine:
    """Our runtime on the file, with the habit."""

    def __init__(self, options: argparse.Namespace) -> None:
        from tritpack.formats.gguf_reader import GgufFile
        from tritpack.runtime.model import Model

        file = GgufFile(options.m)
        if options.habit == "silu":
            file.metadata[f"{file.metadata['general.architecture']}.hidden_activation"] = "silu"
        int8 = False if options.habit == "float" else None
        self.model = Model(file, threads=1, context=256, int8_activations=int8)
        self.habit = options.habit

    def log_probabilities(self, tokens: list[int], batch: int):
        """float64 (tokens, vocab); batch: how many tokens are evaluated at once."""
        import numpy as np

        logits = self.model.logits(tokens).astype(np.float64)
        if self.habit == "nan-batch" and batch > 1:
            logits[:] = np.nan
        return (
            logits
            - logits.max(1, keepdims=True)
            - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1))[:, None]
        )


def serve(options: argparse.Namespace) -> None:
    """Answer /health and /completion."""
    engine = Engine(options)
    seen: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"status": "ok"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            tokens = body["prompt"]
            if options.habit == "crash" and len(tokens) > 3:
                print("GGML_ASSERT(something) failed", file=sys.stderr, flush=True)
                os.kill(os.getpid(), 6)
            reuse = len(seen) if body["cache_prompt"] and tokens[: len(seen)] == seen else 0
            row = engine.log_probabilities(tokens, len(tokens) - reuse)[-1]
            seen[:] = tokens
            self._send(self._reply(row, body["n_probs"]))

        def _reply(self, row, count: int) -> dict:
            best = [int(index) for index in row.argsort()[::-1][:count]]
            if options.form == "new":
                value = {index: None if row[index] != row[index] else float(row[index]) for index in best}
                entry = {"id": best[0], "top_logprobs": [{"id": index, "logprob": value[index]} for index in best]}
            else:
                import numpy as np

                named = [(engine.model.tokenizer.token_bytes(index), float(np.exp(row[index]))) for index in best]
                entry = {"probs": [{"tok_str": old_text(raw), "prob": probability} for raw, probability in named]}
            return {"content": "", "completion_probabilities": [entry]}

        def _send(self, reply: dict) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *args: object) -> None:
            pass

    HTTPServer((options.host, options.port), Handler).serve_forever()


def old_text(raw: bytes) -> str:
    """A token as servers before December 2024 show it."""
    return f"byte: \\x{raw[0]:02x}" if len(raw) == 1 and raw[0] & 0x80 else raw.decode("utf-8", "replace")


def dump(options: argparse.Namespace) -> None:
    """Write what --kl-divergence-base names."""
    import numpy as np

    engine = Engine(options)
    tokens = engine.model.tokenizer.encode(Path(options.f).read_text(), add_special=False)[: options.c]
    rows = engine.log_probabilities(tokens, options.b)[options.c // 2 : -1]
    with open(options.kl_divergence_base, "wb") as file:
        file.write(
            b"_logits_" + struct.pack("<3i", options.c, rows.shape[1], 1) + struct.pack(f"<{options.c}i", *tokens)
        )
        for row in rows:
            least = max(row.min(), row.max() - 16)
            step = (row.max() - least) / 65535
            file.write(struct.pack("<2f", step, least))
            steps = np.zeros((rows.shape[1] + 1) // 2 * 2, "<u2")
            with np.errstate(invalid="ignore"):
                steps[: rows.shape[1]] = np.nan_to_num(np.clip(np.rint((row - least) / step), 0, 65535))
            file.write(steps.tobytes())


def complete(options: argparse.Namespace) -> None:
    """Print the greedy text after a prompt."""
    engine = Engine(options)
    tokens = engine.model.tokenize(options.p)
    before = len(engine.model.detokenize(tokens))
    for _ in range(options.n):
        tokens.append(int(engine.model.logits(tokens)[-1].argmax()))
    print("loading ...", file=sys.stderr)
    print(engine.model.detokenize(tokens)[before:])
