"""Writes layouts.json: known-answer vectors packed weight by weight from the wording of formats/README.md.

Imports nothing of ours on purpose. Run: python tests/golden/generate_layouts.py
"""

from __future__ import annotations

import json
import struct
from pathlib import Path


def codes(rows: int, cols: int, seed: int) -> list[list[int]]:
    state = seed
    out = []
    for _ in range(rows):
        row = []
        for _ in range(cols):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            row.append((state >> 33) % 3 - 1)
        out.append(row)
    return out


def i2_s(matrix: list[list[int]], scale: float) -> bytes:
    flat = [code + 1 for row in matrix for code in row]
    body = bytearray(len(flat) // 4)
    for i, code in enumerate(flat):
        block, group, place = i // 128, i % 128 // 32, i % 32
        body[32 * block + place] |= code << (6 - 2 * group)
    return bytes(body) + struct.pack("<f", scale) + bytes(28)


def hf_u8(matrix: list[list[int]]) -> bytes:
    rows, cols = len(matrix), len(matrix[0])
    body = bytearray(rows // 4 * cols)
    for r, row in enumerate(matrix):
        for c, code in enumerate(row):
            quarter, packed_row = divmod(r, rows // 4)
            body[packed_row * cols + c] |= (code + 1) << (2 * quarter)
    return bytes(body)


if __name__ == "__main__":
    vectors = []
    for rows, cols, seed in ((1, 128, 1), (4, 256, 2), (8, 384, 3)):
        matrix = codes(rows, cols, seed)
        vector = {"rows": rows, "cols": cols, "seed": seed, "scale": 0.037109375, "codes": matrix}
        vector["i2_s"] = i2_s(matrix, 0.037109375).hex()
        if rows % 4 == 0:
            vector["hf_u8"] = hf_u8(matrix).hex()
        vectors.append(vector)
    (Path(__file__).parent / "layouts.json").write_text(json.dumps(vectors, separators=(",", ":")) + "\n")
