"""Names files that are of another kind than a user took them for, by their first bytes."""

from __future__ import annotations

PAGE = "a web page: the download failed, or needs a login"
KINDS = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"%PDF", "a PDF document"),
    (b"<!doctype", PAGE),
    (b"<htm", PAGE),
    (b"version https://git-lfs", "a pointer of Git LFS: the file itself was not fetched"),
    (b"PK\x03\x04", "a zip archive, as PyTorch's .bin and .pt files are"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; a bundle is called .tar.zst"),
    (b"\x80\x02", "a pickle, as old PyTorch files are"),
    (b"ggml", "a model in the format before GGUF, which llama.cpp read until August 2023"),
    (b"lmgg", "a model in the format before GGUF, which llama.cpp read until August 2023"),
    (b"tjgg", "a model in the format before GGUF, which llama.cpp read until August 2023"),
)
"""First bytes -> what such a file is. Those of a page, which are given in lower case, may come after blanks."""
HEAD = 64
"""Bytes that tell."""


def kind_of(head: bytes) -> str | None:
    """Return what a file is that begins with `head`; None if nothing is known."""
    if head[8:10] == b'{"':
        return "a safetensors file, whose name should end with .safetensors"
    page = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for first, kind in KINDS if (page if kind == PAGE else head).startswith(first)), None)
