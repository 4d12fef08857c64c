"""`tritpack serve` (extra `serve`): a model behind HTTP, as clients of OpenAI, Anthropic and llama-server know it."""
