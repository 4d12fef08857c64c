"""Where bytes come from, lazily: a checkpoint folder, a repository on the Hub, a GGUF file."""
