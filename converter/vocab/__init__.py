"""Tokenizers -> GGUF keys: of a checkpoint folder's files, or of another GGUF file.

The `tokenizers` library holds the tokenizer and is asked what it does: which id each token has, what it puts around a
text, how it cuts one. So the answers are those of the checkpoint's own tokenizer, whatever version wrote the files.
What `tokenizer.ggml.*` has no words for goes under `tritpack.tokenizer.*` (keys in runtime/tokenizer.py).
"""

from tritpack.converter.vocab.folder import read_vocabulary
from tritpack.converter.vocab.gguf import vocabulary_of_gguf

__all__ = ["read_vocabulary", "vocabulary_of_gguf"]
