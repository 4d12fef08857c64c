"""Errors as HTTP answers: in OpenAI's shape, and below /v1/messages in Anthropic's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from tritpack.formats.errors import MissingRequirement, TritpackError, Unreadable, Unsupported, UsageError
from tritpack.runtime.ticket_queue import Closed, QueueFull

OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
ANTHROPIC_TYPES = {
    **OPENAI_TYPES, 408: "timeout_error", 413: "request_too_large", 500: "api_error", 503: "overloaded_error",
}  # fmt: skip
ANTHROPIC_PATH = "/v1/messages"


class ApiError(Exception):
    """A request that is not answered as asked. message: a sentence for the client. code: a word for programs. param:
    the field of the request that is wrong."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.code, self.param = message, status, code, param
        self.headers = dict(headers or {})

    def body(self, path: str) -> dict[str, Any]:
        """Return the error in the shape of the protocol that `path` speaks."""
        if path.startswith(ANTHROPIC_PATH):
            kind = ANTHROPIC_TYPES.get(self.status, "api_error" if self.status >= 500 else "invalid_request_error")
            return {"type": "error", "error": {"type": kind, "message": self.message}}
        kind = OPENAI_TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self, path: str) -> Response:
        """Return the HTTP answer."""
        return JSONResponse(self.body(path), self.status, headers=self.headers)


class ContextTooLong(ApiError):
    """A prompt that does not fit into the context."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message, code="context_length_exceeded", param=param)


def from_library(error: TritpackError, param: str | None = None) -> ApiError:
    """Return an error of the library as an answer, without the path of the file, which is nobody else's business."""
    if isinstance(error, QueueFull):
        return too_busy(error.retry_after)
    if isinstance(error, Closed):
        return shutting_down()
    if isinstance(error, (UsageError, Unsupported, Unreadable)):  # Unreadable: a template that refuses these messages
        return ApiError(error.without_path, param=param)
    if isinstance(error, MissingRequirement):
        return ApiError(error.without_path, status=501, param=param)
    return ApiError(f"the model failed: {error.without_path}", status=500, code="model_failed")


def too_busy(retry_after: float) -> ApiError:
    """Return the answer above the limits of the queue. retry_after: seconds."""
    seconds = str(max(1, math.ceil(retry_after)))
    message = f"too many requests wait already; try again in {seconds} s"
    return ApiError(message, status=429, code="rate_limit_exceeded", headers={"Retry-After": seconds})


def shutting_down() -> ApiError:
    """Return the answer to a request that the end of the server forestalls."""
    return ApiError("the server is shutting down", status=503, code="shutting_down")


def event_of(error: ApiError, path: str) -> str:
    """Return an error inside a stream of events, whose HTTP status has been sent already."""
    name = "event: error\n" if path.startswith(ANTHROPIC_PATH) else ""
    return f"{name}data: {json.dumps(error.body(path))}\n\n"
