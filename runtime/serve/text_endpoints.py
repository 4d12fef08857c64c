"""POST /v1/embeddings, and /tokenize and /detokenize as llama-server has them."""

from __future__ import annotations

import base64
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from tritpack.formats.names import POOLING
from tritpack.runtime import embedding
from tritpack.runtime.serve.api_errors import ApiError
from tritpack.runtime.serve.backend import Backend
from tritpack.runtime.serve.json_fields import Fields
from tritpack.runtime.serve.openai_completions import prompts_of
from tritpack.runtime.serve.token_texts import piece


async def embeddings(request: HttpRequest, fields: Fields, backend: Backend) -> Response:
    """Return the vector of each text. `pooling` is an extension, for models that name none."""
    form = fields.text("encoding_format", "float")
    if form not in ("float", "base64"):
        raise fields.fail("encoding_format", "float or base64")
    size = backend.model.spec.hidden_size
    if fields.integer("dimensions", size, 1) != size:
        raise fields.fail("dimensions", f"{size}, the size of this model's vectors")
    pooling = fields.text("pooling")
    if pooling is None and backend.model.spec.pooling == "none":
        message = "the model names no pooling, as embedding models do; say how positions become one vector"
        raise ApiError(f"{message} with pooling: last, mean or cls", code="no_pooling", param="pooling")
    if pooling not in (None, *POOLING[1:]):
        raise fields.fail("pooling", "last, mean or cls")
    inputs = [await _input_ids(text, backend) for text in prompts_of(fields, "input")]
    vectors = [await backend.embedded(ids, pooling) for ids in inputs]
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, form)}
        for index, vector in enumerate(vectors)
    ]
    count = sum(map(len, inputs))
    usage = {"prompt_tokens": count, "total_tokens": count}
    return JSONResponse({"object": "list", "data": data, "model": backend.settings.name, "usage": usage})


async def _input_ids(text: str | list[int], backend: Backend) -> list[int]:
    if isinstance(text, str):
        backend.check_characters(len(text), "input")
        ids = await backend.apart(embedding.text_ids, backend.model, text)
    else:
        ids = text
    if not ids:
        raise ApiError("a text without tokens has no vector", code="invalid_value", param="input")
    backend.check_ids(ids, "input")
    return ids


def _encoded(vector: Any, form: str) -> Any:
    return vector.tolist() if form == "float" else base64.b64encode(vector.astype("<f4").tobytes()).decode()


async def tokenize(request: HttpRequest, fields: Fields, backend: Backend) -> Response:
    """Return the token ids of `content`; with `with_pieces` each with its text, or its bytes where they are no text."""
    content = fields.text("content")
    if content is None:
        raise fields.fail("content", "text")
    special = fields.boolean("parse_special", True)
    backend.check_characters(len(content), "content")
    ids = await backend.apart(
        backend.tokenizer.encode, content, fields.boolean("add_special"), None if special else False
    )
    if not fields.boolean("with_pieces"):
        return JSONResponse({"tokens": ids})
    return JSONResponse({"tokens": [{"id": token, "piece": _piece(backend, token)} for token in ids]})


def _piece(backend: Backend, token: int) -> str | list[int]:
    text = piece(backend.tokenizer, token)
    return list(backend.tokenizer.token_bytes(token)) if text.startswith("bytes:\\x") else text


async def detokenize(request: HttpRequest, fields: Fields, backend: Backend) -> Response:
    """Return the text of `tokens`."""
    tokens = fields.values.get("tokens")
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise fields.fail("tokens", "a list of token ids")
    backend.check_vocabulary(tokens, "tokens")
    return JSONResponse({"content": await backend.apart(backend.tokenizer.decode, tokens)})
