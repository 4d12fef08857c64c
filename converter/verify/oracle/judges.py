"""Who says what is right: the numpy reference, transformers, or outputs that somebody recorded."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.formats.errors import MissingRequirement, Unreadable, Unsupported, UsageError

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

F32 = npt.NDArray[np.float32]


class Judge(Protocol):
    """Outputs of SOURCE: hidden states of an embedding model, logits of every other."""

    @property
    def name(self) -> str:
        """What stands in reports."""

    def outputs(self, sequences: Sequence[Sequence[int]]) -> list[F32]:
        """float32 (tokens, vocab or hidden) of each sequence by itself."""


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
                f"{folder}: transformers does not quantise these masters when it loads them, so it would judge another "
                "model",
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
            raise Unsupported(f"{folder}: transformers cannot load it: {sentence}") from error
        dropped = [*info["unexpected_keys"], *info["missing_keys"]]
        if dropped:
            raise Unsupported(
                f"{folder}: transformers loads it without {dropped[0]!r} ({len(dropped)} tensors do not fit), so it "
                "would judge another model",
                hint="use --oracle reference",
            )
        # transformers widens only the linears; the model's own .float() refuses on quantised models.
        self._model: Any = torch.nn.Module.float(model).eval()
        self._hidden = oracle.spec.is_embedding_model
        self._take_rounded_tables(oracle)
        self.name = f"transformers {transformers.__version__} in float32"

    def _take_rounded_tables(self, oracle: Oracle) -> None:
        """What FILE's types made of embedding and head is a figure of the weights rung, and no deviation here."""
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
                given = self._model(self._torch.tensor([list(tokens)]))
                values = given.last_hidden_state if self._hidden else given.logits
                results.append(values[0].float().numpy())
        return results


def recorded(path: Path, tokens: Sequence[int], model: Model) -> F32:
    """Outputs that somebody recorded for these tokens as .npy, float32 (tokens, vocab or hidden). Raises Unreadable if
    they are none, UsageError for tokens that the model does not have."""
    spec = model.spec
    if bad := [token for token in tokens if not 0 <= token < spec.vocab_size]:
        raise UsageError(f"--tokens: {bad[0]} lies outside the vocabulary of {spec.vocab_size}")
    if len(tokens) > model.context_length:
        raise UsageError(f"--tokens: {len(tokens)} of them, and the context has {model.context_length} positions")
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise Unreadable(f"{path}: is no .npy file: {error}") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise Unreadable(f"{path}: holds no floats")
    values = values.reshape(values.shape[-2:]) if values.ndim == 3 and len(values) == 1 else values
    expected = (len(tokens), spec.hidden_size if spec.is_embedding_model else spec.vocab_size)
    if values.shape != expected:
        raise Unreadable(
            f"{path}: has shape {list(values.shape)}, expected {list(expected)}: one row for each of the --tokens"
        )
    with np.errstate(over="ignore"):
        outputs = np.asarray(values, np.float32)
    if not np.isfinite(outputs).all() or not outputs.any(-1).all():
        raise Unreadable(f"{path}: holds rows that are not finite, or all zeros: no outputs of a model")
    return outputs
