"""What the operator of a server decides, and the bounds that a single request has anyway."""

from __future__ import annotations

import dataclasses

MOST_CHOICES = 16
"""Of `n`."""
MOST_STOPS = 16
MOST_TOP_LOGPROBS = 20
MOST_INPUTS = 2048
"""Of a list of prompts or texts, as at OpenAI."""
MOST_ANSWERS = 128
"""To one request: prompts times `n`."""
MOST_LOGPROBS = 1 << 19
"""Of a request's prompts, the likeliest tokens included: each takes about 200 bytes."""
MOST_TOOLS = 128
CHARACTERS_PER_BYTE = 4
"""How many characters of a text may become one byte of a token: compositions and stripped spaces shorten texts."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a server. timeout: seconds for the body of a request to arrive, again for its answer, and
    for the client to take what was sent."""

    name: str  # what clients see as the model
    api_keys: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()  # origins of pages that may call; "*" is any
    loopback: bool = True  # the address can be reached from this machine alone
    timeout: float = 600.0
    body_limit: int = 4 << 20  # bytes
    slots: int = 4
    log_requests: bool = False
