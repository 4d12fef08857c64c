"""Sessions and sequences of the C library: what evaluates tokens, and the conversations that it remembers.

A session has threads, buffers and a sequence of its own. More sequences share them: `CSession.eval_spans` gives tokens
to several in one pass over the weights, and each token gets the bits that it would get alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.formats.arrays import F32, I32, Bytes
from tritpack.formats.errors import UsageError
from tritpack.runtime.abi import DTYPES, KV_TYPE_IDS, LOGITS_MODES, TRACE, SessionStruct, SpanStruct
from tritpack.runtime.library import MAX_CONTEXT, CModel
from tritpack.runtime.machine import MAX_THREADS

TraceFunction = Callable[[str, int, npt.NDArray[Any]], None]
"""(point, layer or -1, copy of the data (tokens, columns) as float32 or int8). The points: tritpack.h, tp_trace_fn."""

DEFAULT_BATCH = 264


@dataclass(frozen=True)
class Span:
    """Tokens that one sequence gets. The last `wanted` of them give logits."""

    sequence: CSequence
    tokens: Sequence[int] | npt.NDArray[Any]
    wanted: int = 1


class CSequence:
    """The tokens of one conversation, as the keys, values and recurrent states of a session. Made by
    `CSession.new_sequence`; use it from the session's thread."""

    def __init__(self, session: CSession, handle: ctypes.c_void_p, n_ctx: int, *, owned: bool) -> None:
        self.session = session
        self.n_ctx = n_ctx
        self._handle = handle
        self._free = weakref.finalize(self, session.library.c.tp_sequence_free, handle) if owned else None

    @property
    def handle(self) -> ctypes.c_void_p:
        if (self._free is not None and not self._free.alive) or not self.session.is_open:
            raise UsageError("the sequence is closed")
        return self._handle

    @property
    def n_past(self) -> int:
        """Positions in the KV cache."""
        return int(self.session.library.c.tp_sequence_n_past(self.handle))

    def rewindable(self, n_past: int) -> int:
        """Return the last position up to n_past to which it can be rewound, or copied: n_past itself, as far as it is
        filled, unless the model has recurrent layers (tritpack.h says what they keep)."""
        return int(self.session.library.c.tp_sequence_rewindable(self.handle, min(n_past, self.n_past)))

    def rewind(self, n_past: int) -> None:
        """Forget positions >= n_past. UsageError unless 0 <= n_past <= self.n_past and it is `rewindable`."""
        status = self.session.library.c.tp_sequence_rewind(self.handle, n_past)
        self.session.library.check(status, f"rewinding to position {n_past}")

    def copy_from(self, other: CSequence, n_past: int) -> None:
        """Become the first n_past positions of another sequence of the session."""
        status = self.session.library.c.tp_sequence_copy(self.handle, other.handle, n_past)
        self.session.library.check(status, f"copying {n_past} positions")

    def save(self) -> Bytes:
        """Return the keys, values and recurrent states, for `load` of any sequence with the same model and KV type."""
        state = np.empty(self.state_bytes(self.n_past), np.uint8)
        status = self.session.library.c.tp_sequence_save(self.handle, state.ctypes.data, state.nbytes)
        self.session.library.check(status, "saving a sequence")
        return state

    def load(self, n_past: int, state: Bytes) -> None:
        """Become what `save` returned at n_past positions. Unreadable if it has another size, UsageError if the
        context is too short."""
        state = np.ascontiguousarray(state, np.uint8)
        status = self.session.library.c.tp_sequence_load(self.handle, n_past, state.ctypes.data, state.nbytes)
        self.session.library.check(status, f"loading a sequence of {n_past} positions")

    def state_bytes(self, n_past: int) -> int:
        """Bytes of the keys, values and recurrent states of n_past positions."""
        return int(self.session.library.c.tp_sequence_state_bytes(self.handle, n_past))

    def checked(self, tokens: Sequence[int] | npt.NDArray[Any]) -> I32:
        """Return tokens as int32. UsageError for none, one outside the vocabulary, or more than the context holds."""
        wide = np.asarray(tokens, np.int64).reshape(-1)
        spec, past = self.session.model.spec, self.n_past
        if not len(wide):
            raise UsageError("no tokens to evaluate")
        outside = wide[(wide < 0) | (wide >= spec.vocab_size)]
        if len(outside):
            raise UsageError(f"token {outside[0]} lies outside the vocabulary of {spec.vocab_size}")
        if len(wide) > self.n_ctx - past:
            raise UsageError(
                f"{len(wide)} tokens do not fit: {past} of the context's {self.n_ctx} positions are taken",
                hint="shorten the prompt"
                + (" or raise the context" if self.n_ctx < spec.context_length else ": the model has no more"),
            )
        return np.ascontiguousarray(wide, np.int32)

    def close(self) -> None:
        """Free the KV cache; a session's own is freed with the session."""
        if self._free is not None:
            self._free()


class CSession:
    """What evaluates tokens of a CModel: threads, buffers, kernels, and the sequence `own`, which `eval` continues.
    Owns the C object; use from one thread at a time.

    n_ctx: positions, default the model's. threads: the caller's included. isa: for each operation the best kernel at
    or below it, default all this CPU has. kv_type: f32 or i16. batch: tokens worked on at once, default 264, which
    changes no bit.
    Raises MissingRequirement for an ISA that is not here, UsageError for sizes that are out of range.
    """

    def __init__(
        self,
        model: CModel,
        *,
        n_ctx: int | None = None,
        threads: int = 1,
        isa: str | None = None,
        kv_type: str = "f32",
        batch: int | None = None,
    ) -> None:
        self.library = model.library
        self.model = model
        self.n_ctx = n_ctx or model.spec.context_length
        if kv_type not in KV_TYPE_IDS:
            raise UsageError(f"unknown KV cache type {kv_type!r}", hint=f"known: {', '.join(KV_TYPE_IDS)}")
        if not 1 <= threads <= MAX_THREADS:
            raise UsageError(f"{threads} threads, expected 1 to {MAX_THREADS}")
        if not 1 <= self.n_ctx <= MAX_CONTEXT:
            raise UsageError(f"a context of {self.n_ctx} positions, expected 1 to {MAX_CONTEXT}")
        self._batch = batch or DEFAULT_BATCH
        params = SessionStruct(self.n_ctx, threads, self.library.isa_id(isa), KV_TYPE_IDS[kv_type], self._batch)
        handle = ctypes.c_void_p()
        status = self.library.c.tp_session_new(model.handle, ctypes.byref(params), ctypes.byref(handle))
        self.library.check(status, f"session of {self.n_ctx} positions on {threads} threads")
        self._handle = handle
        self._free = weakref.finalize(self, self.library.c.tp_session_free, handle)
        self._sequences: weakref.WeakSet[CSequence] = weakref.WeakSet()
        model.sessions.add(self)

    @property
    def is_open(self) -> bool:
        return self._free.alive

    @property
    def handle(self) -> ctypes.c_void_p:
        if not self.is_open:
            raise UsageError("the session is closed")
        return self._handle

    @property
    def own(self) -> CSequence:
        """The session's own sequence, as a new object each time."""
        made = ctypes.c_void_p(self.library.c.tp_session_sequence(self.handle))
        return CSequence(self, made, self.n_ctx, owned=False)

    @property
    def n_past(self) -> int:
        """Positions in the KV cache of `own`."""
        return int(self.library.c.tp_n_past(self.handle))

    def new_sequence(self, n_ctx: int | None = None) -> CSequence:
        """Make an empty sequence of at most n_ctx positions, by default as many as the session's own. Its memory is
        taken as positions fill up."""
        made = ctypes.c_void_p()
        status = self.library.c.tp_sequence_new(self.handle, n_ctx or 0, ctypes.byref(made))
        self.library.check(status, f"a sequence of {n_ctx or self.n_ctx} positions")
        sequence = CSequence(self, made, n_ctx or self.n_ctx, owned=True)
        self._sequences.add(sequence)
        return sequence

    def eval_spans(self, spans: Sequence[Span]) -> F32:
        """Append tokens to several sequences, in one pass over the weights for each batch of tokens.

        Returns the logits of the wanted tokens in order, float32 (wanted of all, vocab). UsageError as `eval`, for a
        sequence of another session, and for one that is named twice. Whatever is raised: every sequence stays as it
        was or, with recurrent layers, goes back to the last position from which that is possible.
        """
        ids = [span.sequence.checked(span.tokens) for span in spans]
        structs = (SpanStruct * len(spans))()
        for struct, span, tokens in zip(structs, spans, ids, strict=True):
            struct.sequence, struct.tokens = span.sequence.handle, tokens.ctypes.data
            struct.n, struct.wanted = len(tokens), span.wanted
            if not 0 <= span.wanted <= len(tokens):
                raise UsageError(f"logits of {span.wanted} tokens are wanted, and {len(tokens)} are given")
        before = [span.sequence.n_past for span in spans]
        try:
            out = np.empty((sum(span.wanted for span in spans), self.model.spec.vocab_size), np.float32)
            status = self.library.c.tp_eval_spans(self.handle, structs, len(spans), out.ctypes.data)
            self.library.check(status, f"evaluating tokens of {len(spans)} sequences")
        except BaseException:  # Ctrl-C comes when C has returned
            for span, n_past in zip(spans, before, strict=True):
                if self.is_open and span.sequence.n_past > n_past:
                    span.sequence.rewind(span.sequence.rewindable(n_past))
            raise
        return out

    def eval(self, tokens: Sequence[int] | npt.NDArray[Any], logits: str = "last") -> F32:
        """Append tokens to `own`. Logits float32 (n, vocab) for "all", (1, vocab) for "last", (0, vocab) for "none".

        UsageError for no tokens, a token outside the vocabulary or more than the context holds. Whatever is raised,
        KeyboardInterrupt included: the session stays as it was or, with recurrent layers, goes back to the last
        position before it that is `rewindable`.
        """
        if logits not in LOGITS_MODES:
            raise UsageError(f"unknown logits mode {logits!r}", hint=f"known: {', '.join(LOGITS_MODES)}")
        ids = self.own.checked(tokens)
        rows = {"none": 0, "last": 1, "all": len(ids)}[logits]
        out = np.empty((rows, self.model.spec.vocab_size), np.float32)

        def evaluate(piece: I32, first: int) -> int:
            wanted = "none" if logits == "last" and first + len(piece) < len(ids) else logits
            target = {"none": None, "last": out, "all": out[first:]}[wanted]
            address = None if target is None else target.ctypes.data
            return int(
                self.library.c.tp_eval(self.handle, piece.ctypes.data, len(piece), LOGITS_MODES[wanted], address)
            )

        self._in_pieces(ids, evaluate)
        return out

    def hidden(self, tokens: Sequence[int] | npt.NDArray[Any]) -> F32:
        """Append tokens to `own`; float32 (n, hidden) states after the final norm. Errors as eval."""
        ids = self.own.checked(tokens)
        out = np.empty((len(ids), self.model.spec.hidden_size), np.float32)

        def evaluate(piece: I32, first: int) -> int:
            return int(
                self.library.c.tp_eval_hidden(self.handle, piece.ctypes.data, len(piece), out[first:].ctypes.data)
            )

        self._in_pieces(ids, evaluate)
        return out

    def rewind(self, n_past: int) -> None:
        """Forget positions >= n_past of `own`. UsageError as of a sequence."""
        self.own.rewind(n_past)

    def kernels(self) -> list[str]:
        """Symbols of the kernels that ran in this session so far."""
        count = self.library.c.tp_session_kernels(self.handle, None, 0)
        symbols = (ctypes.c_char_p * max(count, 1))()
        self.library.c.tp_session_kernels(self.handle, symbols, count)
        return [symbol.decode() for symbol in symbols[:count] if symbol is not None]

    @contextlib.contextmanager
    def traced(self, record: TraceFunction, wanted: Callable[[str], bool] = lambda point: True) -> Iterator[None]:
        """Within the block, `record` is called after each step of an eval whose point is wanted. What it raises leaves
        the block."""
        raised: list[BaseException] = []

        def on_step(_user: int, point: bytes, layer: int, dtype: int, rows: int, cols: int, data: int) -> None:
            if raised or not wanted(point.decode()):
                return
            try:
                raw = ctypes.string_at(data, rows * cols * DTYPES[dtype].itemsize)
                record(point.decode(), layer, np.frombuffer(raw, DTYPES[dtype]).reshape(rows, cols))
            except BaseException as error:
                raised.append(error)

        with self._calling(TRACE(on_step)):
            yield
        if raised:
            raise raised[0]

    def stepped(self, on_step: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
        """Within the block, `on_step` is called with the point of each step after it. It must raise nothing."""
        return self._calling(TRACE(lambda _user, point, *_data: on_step(point.decode())))

    @contextlib.contextmanager
    def _calling(self, callback: Any) -> Iterator[None]:
        """Within the block, C calls back after each step."""
        self.library.c.tp_set_trace(self.handle, callback, None)
        try:
            yield
        finally:
            if self._free.alive:
                self.library.c.tp_set_trace(self._handle, TRACE(), None)

    def close(self) -> None:
        """Free the C object, its sequences first, and end its threads."""
        for sequence in list(self._sequences):
            sequence.close()
        self._free()

    def __enter__(self) -> CSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _in_pieces(self, ids: I32, evaluate: Callable[[I32, int], int]) -> None:
        """`evaluate(piece, index of its first token)` over pieces of the batch size, which C cuts alike and no bit
        depends on: between two of them Python handles signals, so that Ctrl-C ends a long prompt."""
        before = self.n_past
        try:
            for first in range(0, len(ids), self._batch):
                self.library.check(evaluate(ids[first : first + self._batch], first), f"evaluating {len(ids)} tokens")
        except BaseException:
            if self.is_open:
                self.rewind(self.own.rewindable(before))
            raise
