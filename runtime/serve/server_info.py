"""GET /health, /v1/models, /props and /metrics."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from tritpack.runtime.sampling_defaults import sampling_params
from tritpack.runtime.serve.api_errors import ApiError
from tritpack.runtime.serve.backend import Backend


async def health(request: HttpRequest) -> Response:
    """Answer that the server runs. It needs no key."""
    return JSONResponse({"status": "ok"})


async def models(backend: Backend) -> Response:
    """List the one model."""
    return JSONResponse({"object": "list", "data": [_model(backend)]})


def model(backend: Backend, name: str) -> Response:
    """Describe the model, if it has this name."""
    if name != backend.settings.name:
        raise ApiError(f"there is no model {name!r} here", status=404, code="model_not_found", param="model")
    return JSONResponse(_model(backend))


def _model(backend: Backend) -> dict[str, Any]:
    spec = backend.model.spec
    meta = {"n_ctx": backend.model.context_length, "n_ctx_train": spec.context_length, "n_vocab": spec.vocab_size,
            "n_embd": spec.hidden_size}  # fmt: skip
    return {
        "id": backend.settings.name,
        "object": "model",
        "created": backend.created,
        "owned_by": "tritpack",
        "meta": meta,
    }


async def metrics(backend: Backend) -> Response:
    """Return figures for Prometheus."""
    return Response(generate_latest(backend.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def props(backend: Backend) -> Response:
    """Describe file, model and server: what llama-server says, and under `tritpack` what was proved."""
    tokenizer, params = backend.tokenizer, sampling_params(backend.model.file.metadata)
    sampling = {"temperature": params.temperature, "top_k": params.top_k, "top_p": params.top_p, "min_p": params.min_p,
                "repeat_penalty": params.repetition_penalty}  # fmt: skip
    return JSONResponse(
        {
            "default_generation_settings": {"n_ctx": backend.model.context_length, "params": sampling},
            "total_slots": backend.settings.slots,
            "model_alias": backend.settings.name,
            "model_path": backend.model.file.path.name,  # the folder is nobody else's business
            "modalities": {"vision": False, "audio": False},
            "chat_template": tokenizer.chat_template or "",
            "bos_token": tokenizer.bos_token or "",
            "eos_token": tokenizer.eos_token or "",
            "build_info": f"tritpack {backend.about.get('version', '')}".strip(),
            "tritpack": {**about(backend), "kernels": await backend.kernels()},
        }
    )


def about(backend: Backend) -> dict[str, Any]:
    """Return facts about the file and how it runs."""
    model = backend.model
    ternary = [tensor for tensor in model.file.tensors.values() if model.file.layout_of(tensor) is not None]
    bits = 8 * sum(tensor.nbytes for tensor in ternary) / max(1, sum(tensor.rows * tensor.cols for tensor in ternary))
    return {
        "file": model.file.path.name,
        "size": sum(path.stat().st_size for path in model.file.files),
        "sha256": model.file.sha256,
        "layout": ", ".join(sorted({tensor.layout for tensor in ternary})),
        "ternary_bits": round(bits, 4),
        "parameters": sum(tensor.rows * tensor.cols for tensor in model.file.tensors.values()),
        "embedding": model.file.tensors["token_embd.weight"].layout,
        "context": model.context_length,
        **backend.about,
        "attestation": _attested(backend),
    }


def _attested(backend: Backend) -> dict[str, Any] | None:
    """What the attestation beside the file says, and whether it is about these bytes."""
    statement = backend.about.get("attestation")
    if statement is None:
        return None
    predicate = statement["predicate"]
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    return {
        "of_this_file": sorted(subjects.values()) == sorted(backend.model.file.file_hashes.values()),
        **{key: predicate[key] for key in ("verdict", "conclusion", "level", "source", "verifier")},
    }
