"""A model that is ready to run: a GGUF file's mapped tensors, given to the C library, and one session of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.formats import float_types, model_metadata, names
from tritpack.formats.arrays import F32, Bytes
from tritpack.formats.delta_net import FLOATS
from tritpack.formats.errors import Unreadable, Unsupported, UsageError, locating
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.layouts.catalog import READ_ONLY
from tritpack.formats.model_spec import ALL_NORMS, ROPE_FACTORS
from tritpack.runtime import embedding, packers, pages, sampling_defaults
from tritpack.runtime.chat import Message, chat_ids
from tritpack.runtime.continuation import Generation
from tritpack.runtime.draft_model import ModelDraft
from tritpack.runtime.generate import collect, stream_tokens
from tritpack.runtime.library import CModel, CTensor
from tritpack.runtime.machine import usable_cores
from tritpack.runtime.request_options import make_request
from tritpack.runtime.sampling import SamplingParams
from tritpack.runtime.session import CSession, Span
from tritpack.runtime.speculation import Draft, LookupDraft, Speculation
from tritpack.runtime.token_bytes import context_for
from tritpack.runtime.tokenizer import Tokenizer

CODES = ".q8"
"""The end of the C graph's trace points of int8 codes; what precedes it is the point's name in reference.py."""
SCALE = ".scale"
"""The end of the trace points of the codes' scales."""
OnText = Callable[[str], object]
"""Called with each piece of text as soon as it can be shown."""
ONE_INPUT = "give either a prompt or tokens"


class Model:
    """A model in a GGUF file, with one session that remembers tokens.

    `generate`, `chat`, `logits` and `embed` begin a text of their own; `eval` continues the session and `reset` empties
    it. `generate` and `chat` do not evaluate what the session remembers of their prompt again.
    threads: None takes all cores that this process may use. isa: None takes the best of this CPU. kv_type: f32 or i16.
    context: positions of the KV cache, at most the model's; None takes the model's, as far as 4 GiB hold them for
    each of `sequences`, with recurrent states.
    int8_activations: whether linears quantise their input; None takes what the file says or its layout implies.
    draft: what guesses tokens for `generate` and `chat`, which changes their speed only: `lookup` finds them in the
    text so far, `none` guesses nothing. draft_model: a smaller model of the same family that guesses instead.
    no_mmap: copy the weights into memory of this process, in huge pages where the system has them. weights: the bytes
    of each file of the model, where they are.
    Raises Unreadable for a file that is not a model, Unsupported for a model that cannot run here, MissingRequirement
    without the C library, for an ISA that this CPU lacks, or if there is too little memory for a copy, UsageError if
    4 GiB do not hold the recurrent states and no context is given.
    """

    def __init__(
        self,
        file: GgufFile | str | Path,
        *,
        threads: int | None = None,
        isa: str | None = None,
        kv_type: str = "f32",
        context: int | None = None,
        int8_activations: bool | None = None,
        no_mmap: bool = False,
        draft: str = "lookup",
        draft_model: str | Path | None = None,
        sequences: int = 1,
    ) -> None:
        packers.use_c_packers()  # they check some layouts faster
        self.file = file if isinstance(file, GgufFile) else GgufFile(file)
        with locating(path=self.file.path):
            model_metadata.require_ternary(self.file)
            self.spec = model_metadata.from_gguf(self.file)
        if int8_activations is not None:
            self.spec = dataclasses.replace(self.spec, int8_activations=int8_activations)
        with locating(path=self.file.path):
            self.context_length = context_for(self.spec, kv_type, sequences, context)
        threads = threads or usable_cores()
        self.weights: list[Bytes] = (pages.copied if no_mmap else pages.read_in)(self.file, threads)
        self._model = CModel(self.spec, self._tensors())
        self._session = CSession(self._model, n_ctx=self.context_length, threads=threads, isa=isa, kv_type=kv_type)
        self.kv_type = kv_type
        self.tokens: list[int] = []  # that the session remembers
        if draft not in names.DRAFTS:
            raise UsageError(f"unknown draft {draft!r}", hint=f"known: {', '.join(names.DRAFTS)}")
        self._draft: Callable[[], Draft] | None = LookupDraft if draft == "lookup" else None
        self._draft_model: Model | None = None
        if draft_model is not None:
            self._draft_model = Model(draft_model, threads=threads, isa=isa, kv_type=kv_type, no_mmap=no_mmap)
            guesser = ModelDraft(self._draft_model, self)
            self._draft = lambda: guesser

    def __repr__(self) -> str:
        size = f"{self.spec.layers} layers, context {self.context_length}"
        return f"Model({str(self.file.path)!r}, {self.spec.architecture}, {size})"

    @property
    def c_model(self) -> CModel:
        """The model as the C library holds it."""
        return self._model

    @property
    def session(self) -> CSession:
        """The session, for more sequences beside its own."""
        return self._session

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer inside the file. Raises Unsupported if the file has none that is supported."""
        return Tokenizer.from_metadata(self.file.metadata, self.file.path)

    # -- text, with the arguments of the commands of the same names ----------------------------------------------------

    def generate(
        self,
        prompt: str | None = None,
        *,
        tokens: Sequence[int] | None = None,
        chat: bool = False,
        system: str | None = None,
        max_tokens: int = 64,
        no_special: bool = False,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        json_schema: str | Mapping[str, Any] | None = None,
        grammar: str | None = None,
        temp: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repeat_penalty: float | None = None,
        seed: int = 0,
        on_text: OnText | None = None,
    ) -> Generation:
        """Continue a prompt, or token ids used as given.

        chat: the prompt is a user's message, for the model's chat template. system: a system message before it.
        max_tokens: -1 runs until a stop token or the end of the context. no_special: do not add the specials that the
        tokenizer adds to a prompt. stop: texts that end the answer, and are left out. logprobs: how many of the
        likeliest tokens to give with the log-probability of each token. json_schema, grammar: what the text must keep
        to (see runtime/grammar.py). temp 0 is greedy; top_k 0, top_p 1, min_p 0 and repeat_penalty 1 are off; None
        takes what the file says, which is greedy where it says nothing.
        Raises UsageError for an impossible value, Unsupported for an embedding model.
        """
        self.require_logits()
        request = make_request(
            self, prompt, tokens=tokens, chat=chat, system=system, max_tokens=max_tokens, no_special=no_special,
            stop=stop, logprobs=logprobs, json_schema=json_schema, grammar=grammar, temp=temp, top_k=top_k, top_p=top_p,
            min_p=min_p, repeat_penalty=repeat_penalty, seed=seed,
        )  # fmt: skip
        return collect(stream_tokens(self, self.tokenizer, request), on_text)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        system: str | None = None,
        max_tokens: int = -1,
        temp: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repeat_penalty: float | None = None,
        seed: int = 0,
        on_text: OnText | None = None,
    ) -> Generation:
        """Answer a conversation, a list of {role, content}, through the model's own chat template.

        system: a system message to put before it. The other arguments are those of `generate`. Raises Unsupported for
        a model without a chat template.
        """
        first: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        return self.generate(
            tokens=chat_ids(self.tokenizer, [*first, *messages]), max_tokens=max_tokens, temp=temp, top_k=top_k,
            top_p=top_p, min_p=min_p, repeat_penalty=repeat_penalty, seed=seed, on_text=on_text,
        )  # fmt: skip

    def tokenize(
        self, prompt: str | None = None, *, chat: Sequence[Message] | None = None, no_special: bool = False
    ) -> list[int]:
        """Return the token ids of a text, or of a conversation as the model's chat template renders it."""
        if (prompt is None) == (chat is None):
            raise UsageError("give either a prompt or a chat")
        if chat is not None:
            return chat_ids(self.tokenizer, chat)
        return self.tokenizer.encode(prompt or "", add_special=not no_special)

    def detokenize(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """Return the text of token ids. skip_special: leave control tokens out."""
        return self.tokenizer.decode(tokens, skip_special=skip_special)

    def logits(
        self, tokens: Sequence[int] | None = None, *, prompt: str | None = None, no_special: bool = False
    ) -> F32:
        """Return the logits of every position, float32 (tokens, vocab), of token ids or of a prompt."""
        ids = self._input_ids(prompt, tokens, no_special)
        self.reset()
        return self.eval_all(ids)

    def embed(
        self,
        prompt: str | None = None,
        *,
        tokens: Sequence[int] | None = None,
        pooling: str | None = None,
        no_normalize: bool = False,
    ) -> F32:
        """Return the embedding of a text, float32 (hidden,).

        tokens: token ids to use as given, instead of a prompt. pooling: `last`, `mean` or `cls`; None takes the model's
        own. no_normalize: leave the vector's length as it is; it is 1 otherwise.
        """
        if tokens is None or prompt is not None:
            if prompt is None or tokens is not None:
                raise UsageError(ONE_INPUT)
            tokens = embedding.text_ids(self, prompt)
        return embedding.embed(self, tokens, pooling=pooling, normalize=not no_normalize)

    @functools.cached_property
    def sampling_defaults(self) -> dict[str, float]:
        """The sampling options that the file gives, by name (see runtime/sampling_defaults.py)."""
        return sampling_defaults.file_sampling(self.file.metadata, self.file.path)

    def sampling_params(self, **options: Any) -> SamplingParams:
        """Return how to sample: temp, top_k, top_p, min_p, repeat_penalty and seed, None taking what the file says."""
        return sampling_defaults.sampling_params(self.file.metadata, self.file.path, **options)

    def speculation(self) -> Speculation | None:
        """Return what guesses tokens for one request, None if nothing does."""
        return Speculation(self._draft()) if self._draft is not None else None

    def require_logits(self) -> None:
        """Raise Unsupported for an embedding model: it was not trained to predict, so its logits mean nothing."""
        if self.spec.is_embedding_model:
            raise Unsupported(
                "is an embedding model, which was not trained to predict a next token",
                path=self.file.path,
                hint="tritpack embed computes its vector",
            )

    # -- the session ---------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget every token."""
        self.rewind(0)

    def eval(self, tokens: Sequence[int]) -> F32:
        """Append tokens to the session and return the logits of the last one, float32 (vocab,)."""
        last: F32 = self._append(tokens, "last")[-1]
        return last

    def eval_last(self, tokens: Sequence[int], wanted: int) -> F32:
        """Append tokens to the session and return the logits of the last `wanted`, float32 (wanted, vocab)."""
        if wanted < 2:
            return self._append(tokens, "last" if wanted else "none")
        self.settle()
        logits = self._session.eval_spans([Span(self._session.own, tokens, wanted)])
        self.tokens.extend(map(int, tokens))
        return logits

    def eval_all(self, tokens: Sequence[int]) -> F32:
        """Append tokens to the session and return the logits of each, float32 (tokens, vocab)."""
        return self._append(tokens, "all")

    def append(self, tokens: Sequence[int]) -> None:
        """Append tokens to the session, without logits."""
        self._append(tokens, "none")

    def rewindable(self, positions: int) -> int:
        """Return how many of the first `positions` tokens stay in the session if it is rewound to them: all, unless the
        model has recurrent layers, which keep few earlier states."""
        return self._session.own.rewindable(positions)

    def rewind(self, positions: int) -> None:
        """Forget all tokens after the first `positions`. Those that are not `rewindable` are evaluated again with what
        comes next. UsageError unless 0 <= positions <= the number of tokens."""
        if not 0 <= positions <= len(self.tokens):
            raise UsageError(f"rewinding to position {positions}, and there are {len(self.tokens)} tokens")
        del self.tokens[positions:]
        self._drop_untold()

    def hidden(self, tokens: Sequence[int]) -> F32:
        """Start the session anew; return the states after the final norm, float32 (tokens, hidden)."""
        self.reset()
        states = self._session.hidden(tokens)
        self.tokens.extend(map(int, tokens))
        return states

    def settle(self) -> None:
        """Let the session remember `tokens`, and nothing else: Ctrl-C may have come between the two, and a session with
        recurrent layers may have gone further back than it was asked to."""
        self._drop_untold()
        if missing := self.tokens[self._session.n_past :]:
            self._session.eval(missing, logits="none")

    def _drop_untold(self) -> None:
        """Let the session forget what is not in `tokens`."""
        if self._session.n_past > len(self.tokens):
            self._session.rewind(self.rewindable(len(self.tokens)))

    def _append(self, tokens: Sequence[int], logits: str) -> F32:
        self.settle()
        rows = self._session.eval(tokens, logits=logits)
        self.tokens.extend(map(int, tokens))
        return rows

    def outputs(self, tokens: Sequence[int]) -> F32:
        """Return what the model was trained for: `hidden` of an embedding model, `logits` of any other."""
        return self.hidden(tokens) if self.spec.is_embedding_model else self.logits(tokens)

    def traced_outputs(
        self, tokens: Sequence[int], floats: Callable[[str, int, F32], None] | None = None
    ) -> tuple[F32, dict[tuple[int, str], npt.NDArray[np.int8]]]:
        """Return `outputs`, and the int8 codes that entered each group of linears by (layer, point of reference.py).

        floats: a tracer of reference.py, called with copies of every other point; a long sequence comes in several
        pieces.
        """
        pieces: dict[tuple[int, str], list[npt.NDArray[np.int8]]] = {}

        def record(point: str, layer: int, data: npt.NDArray[np.generic]) -> None:
            if point.endswith(CODES):
                pieces.setdefault((layer, point.removesuffix(CODES)), []).append(data.astype(np.int8))
            elif floats is not None and not point.endswith(SCALE):
                floats(point, layer, data.astype(np.float32))

        with self._session.traced(record, lambda point: floats is not None or point.endswith(CODES)):
            outputs = self.outputs(tokens)
        return outputs, {key: np.concatenate(parts) for key, parts in pieces.items()}

    def kernels(self) -> list[str]:
        """Return the symbols of the kernels that have run in this session."""
        return self._session.kernels()

    def close(self) -> None:
        """Free the session and the model; neither can be used afterwards."""
        self._session.close()
        self._model.close()
        if self._draft_model is not None:
            self._draft_model.close()
        self.weights = []

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _input_ids(self, prompt: str | None, tokens: Sequence[int] | None, no_special: bool) -> Sequence[int]:
        """The ids of whichever is given. Raises UsageError unless it is exactly one."""
        if (prompt is None) == (tokens is None):
            raise UsageError(ONE_INPUT)
        return tokens if tokens is not None else self.tokenize(prompt, no_special=no_special)

    def _tensors(self) -> dict[str, CTensor]:
        """Every tensor of the model for C, with its shape checked; all but norms, and what is as small, stay where they
        are mapped."""
        tensors = {}
        if unknown := self.spec.unknown_tensors(self.file.tensors):
            raise Unsupported(
                f"has no place in a model of architecture {self.spec.architecture}",
                path=self.file.path,
                tensor=unknown[0],
                hint="without this tensor it would be another model",
            )
        for name, shape in self.spec.tensor_shapes().items():
            if name == ROPE_FACTORS:
                continue  # the spec's frequencies contain them already
            info = self.file.tensors.get(name)
            if info is None:
                raise Unreadable("is missing", path=self.file.path, tensor=name)
            if info.shape != shape:
                shapes = f"{list(info.shape)}, expected {list(shape)}"
                raise Unreadable(f"has shape {shapes}", path=self.file.path_of(info), tensor=name)
            stored = self.weights[info.file_index][info.file_offset : info.file_offset + info.nbytes]
            tensors[name] = c_tensor(self.file, info, stored)
        return tensors


def c_tensor(file: GgufFile, info: TensorInfo, stored: Bytes) -> CTensor:
    """A tensor of a file for the C library. stored: its bytes, wherever they are. Raises Unreadable for bytes or scales
    that are not those of its layout, Unsupported for a layout without kernels."""
    part = info.name.split(".")[2 if info.name.startswith("blk.") else 0]
    if part in (*ALL_NORMS, *FLOATS, "output_norm") and info.layout in float_types.FLOAT_TYPES:
        values = float_types.decode(info.layout, stored, info.rows, info.cols)
        return CTensor(np.ascontiguousarray(values).view(np.uint8).reshape(-1), "f32", info.rows, info.cols)
    if (layout := file.layout_of(info)) is None:
        return CTensor(stored, info.layout, info.rows, info.cols)
    with locating(path=file.path_of(info), tensor=info.name):
        if layout.name in READ_ONLY:
            hint = "tritpack repack FILE -o OUT.gguf writes its codes and scales in a layout that is run"
            raise Unsupported(f"is stored as {layout.name}, which is read here and not run", hint=hint)
        tiling, scale = layout.tiling_of(info.rows, info.cols), file.outer_scale(info)
        if problems := file.check(info, stored):
            raise Unreadable(problems[0])
    return CTensor(stored, info.layout, info.rows, info.cols, tiling=tiling, scale=scale)


def generate(
    file: GgufFile | str | Path,
    prompt: str | None = None,
    *,
    tokens: Sequence[int] | None = None,
    chat: bool = False,
    system: str | None = None,
    max_tokens: int = 64,
    no_special: bool = False,
    stop: Sequence[str] = (),
    logprobs: int | None = None,
    json_schema: str | Mapping[str, Any] | None = None,
    grammar: str | None = None,
    temp: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repeat_penalty: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    isa: str | None = None,
    kv_type: str = "f32",
    context: int | None = None,
    no_mmap: bool = False,
    draft: str = "lookup",
    draft_model: str | Path | None = None,
    on_text: OnText | None = None,
) -> Generation:
    """Open a file, continue one prompt, and close it: `Model` and `Model.generate` in one call."""
    with Model(
        file, threads=threads, isa=isa, kv_type=kv_type, context=context, no_mmap=no_mmap, draft=draft,
        draft_model=draft_model,
    ) as model:  # fmt: skip
        return model.generate(
            prompt, tokens=tokens, chat=chat, system=system, max_tokens=max_tokens, no_special=no_special, stop=stop,
            logprobs=logprobs, json_schema=json_schema, grammar=grammar, temp=temp, top_k=top_k, top_p=top_p,
            min_p=min_p, repeat_penalty=repeat_penalty, seed=seed, on_text=on_text,
        )  # fmt: skip
