"""Judges give the outputs that count as right: the numpy reference, transformers, or outputs from a file."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.formats.errors import MissingRequirement, Unreadable, Unsupported, UsageError
from tritpack.formats.inputs import open_input

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

F32 = npt.NDArray[np.float32]


class Judge(Protocol):
    """Outputs of SOURCE: hidden states of an embedding model, logits of every other."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def outputs(self, sequences: Sequence[Sequence[int]]) -> list[F32]:
        """Per sequence float32 (tokens, vocab or hidden), each computed by itself."""


class Transformers:
    """transformers in float32 on the checkpoint folder (extra `oracles`). Raises MissingRequirement if it is not
    installed, Unsupported for a checkpoint that it loads wrongly or not at all."""

    def __init__(self, folder: Path, oracle: Oracle) -> None:
        try:
            torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
        except ImportError as error:
            raise MissingRequirement(
                f"--oracle transformers needs {error.name}, which is not installed",
                hint="pip install tritpack[oracles]",
            ) from error
        if oracle.quantizes_floats:
            raise Unsupported(
                "transformers does not quantise these master weights when it loads them, so it would judge another "
                "model",
                path=folder,
                hint="use --oracle reference",
            )
        self._torch: Any = torch
        kind = transformers.AutoModel if oracle.spec.is_embedding_model else transformers.AutoModelForCausalLM
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            model, info = kind.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # whatever a checkpoint makes it raise
            sentence = " ".join(str(error).split())[:200] or type(error).__name__
            raise Unsupported(f"transformers cannot load it: {sentence}", path=folder) from error
        dropped = [*info["unexpected_keys"], *info["missing_keys"]]
        if dropped:
            raise Unsupported(
                f"transformers loads it without {dropped[0]!r} ({len(dropped)} tensors do not fit), so it would judge "
                "another model",
                path=folder,
                hint="use --oracle reference",
            )
        # transformers widens only the linears; the model's own .float() refuses on quantised models.
        self._model: Any = torch.nn.Module.float(model).eval()
        self._hidden = oracle.spec.is_embedding_model
        self._take_rounded_tables(oracle)
        self.name = f"transformers {transformers.__version__} in float32"

    def _take_rounded_tables(self, oracle: Oracle) -> None:
        """Compute with embedding and head as FILE stores them: the weights rung reports their rounding."""
        torch, vocab = self._torch, oracle.spec.vocab_size
        with torch.no_grad():
            table = oracle.embedding(np.arange(vocab))
            self._model.get_input_embeddings().weight[:vocab] = torch.from_numpy(table)
            if not self._hidden and not oracle.spec.tied:
                head = np.concatenate(list(oracle.head()))
                self._model.get_output_embeddings().weight[:vocab] = torch.from_numpy(head)

    def outputs(self, sequences: Sequence[Sequence[int]]) -> list[F32]:
        results = []
        with self._torch.no_grad():
            for tokens in sequences:
                output = self._model(self._torch.tensor([list(tokens)]))
                values = output.last_hidden_state if self._hidden else output.logits
                results.append(values[0].float().numpy())
        return results


def read_recorded(path: Path, tokens: Sequence[int], model: Model) -> F32:
    """Outputs recorded in a .npy file for these tokens, float32 (tokens, vocab or hidden).

    Raises Unreadable if the file holds anything else, UsageError for tokens that the model does not have.
    """
    spec = model.spec
    if outside := [token for token in tokens if not 0 <= token < spec.vocab_size]:
        raise UsageError(f"--tokens: {outside[0]} lies outside the vocabulary of {spec.vocab_size}")
    if len(tokens) > model.context_length:
        raise UsageError(f"--tokens: {len(tokens)} tokens do not fit a context of {model.context_length}")
    with open_input(path):  # refuses a pipe, for which np.load would wait
        try:
            # Mapped, since numpy allocates what a header claims before it looks at the size of the file.
            values = np.load(path, allow_pickle=False, mmap_mode="r")
        except Exception as error:  # whatever a header makes numpy's parser raise
            sentence = (str(error).splitlines() or [type(error).__name__])[0]
            raise Unreadable(f"it is not a .npy file: {sentence}", path=path) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise Unreadable("it does not hold floats", path=path)
    values = values.reshape(values.shape[-2:]) if values.ndim == 3 and len(values) == 1 else values
    expected = (len(tokens), spec.hidden_size if spec.is_embedding_model else spec.vocab_size)
    if values.shape != expected:
        message = f"its shape is {list(values.shape)}, expected {list(expected)}: one row for each of the --tokens"
        raise Unreadable(message, path=path)
    with np.errstate(over="ignore"):
        outputs = np.array(values, np.float32)
    if not np.isfinite(outputs).all() or not outputs.any():
        raise Unreadable("it holds values that are not finite, or nothing but zeros", path=path)
    return outputs
