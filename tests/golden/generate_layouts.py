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


def t2(matrix: list[list[int]], scales: list[float], scale_blocks: list[int]) -> bytes:
    """Header, scales padded to 32 bytes, then every row in blocks of I2_S, padded with zero weights."""
    header = b"T2" + struct.pack("<HII", 1, *scale_blocks) + bytes(20)
    stored = b"".join(struct.pack("<f", scale) for scale in scales)
    padded = [row + [0] * (-len(row) % 128) for row in matrix]
    return header + stored + bytes(-len(stored) % 32) + i2_s(padded, 0.0)[:-32]


if __name__ == "__main__":
    vectors = []
    for rows, cols, seed in ((1, 128, 1), (4, 256, 2), (8, 384, 3)):
        matrix = codes(rows, cols, seed)
        vector = {"rows": rows, "cols": cols, "seed": seed, "scales": [0.037109375], "scale_blocks": [1, 1]}
        vector["codes"] = matrix
        vector["i2_s"] = i2_s(matrix, 0.037109375).hex()
        if rows % 4 == 0:
            vector["hf_u8"] = hf_u8(matrix).hex()
        vector["t2"] = t2(matrix, [0.037109375], [1, 1]).hex()
        vectors.append(vector)
    for rows, cols, seed, blocks in (
        (3, 100, 4, [1, 1]),
        (4, 130, 5, [2, 1]),
        (6, 192, 6, [6, 2]),
        (2, 328, 7, [1, 41]),
    ):
        matrix = codes(rows, cols, seed)
        scales = [(i + 1) / 64 for i in range(blocks[0] * blocks[1])]
        vector = {"rows": rows, "cols": cols, "seed": seed, "scales": scales, "scale_blocks": blocks, "codes": matrix}
        vector["t2"] = t2(matrix, scales, blocks).hex()
        vectors.append(vector)
    (Path(__file__).parent / "layouts.json").write_text(json.dumps(vectors, separators=(",", ":")) + "\n")
