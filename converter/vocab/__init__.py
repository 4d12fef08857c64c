"""GGUF keys of tokenizers: from the files of a checkpoint folder, or from another GGUF file.

The `tokenizers` library loads the tokenizer, and the keys come from its behaviour: the id of each token, the tokens it
puts around a text, how it splits a text. So they describe the checkpoint's own tokenizer, whichever version wrote its
files. What `tokenizer.ggml.*` cannot express goes under `tritpack.tokenizer.*` (keys in runtime/tokenizer.py).
"""

from tritpack.converter.vocab.folder import read_tokenizer, read_vocabulary
from tritpack.converter.vocab.gguf import vocabulary_from_gguf

__all__ = ["read_tokenizer", "read_vocabulary", "vocabulary_from_gguf"]
