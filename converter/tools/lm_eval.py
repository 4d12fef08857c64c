"""`tritpack eval`: our runtime as a model of lm-evaluation-harness (extra `eval`).

It can be imported only where the harness is installed. A context that several requests share is evaluated once: a
session that is rewound gives the same bits as a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, make_table
from tqdm import tqdm

from tritpack.formats.errors import TritpackError, Unreadable, Unsupported, UsageError
from tritpack.runtime.chat import chat_text
from tritpack.runtime.continuation import Request
from tritpack.runtime.generate import collect, common_prefix, stream_tokens
from tritpack.runtime.model import Model
from tritpack.runtime.perplexity import log_softmax
from tritpack.runtime.sampling import SamplingParams

SCHEMA = "tritpack.eval/1"
MAX_NEW_TOKENS = 256
Scored = tuple[float, bool]


@register_model("tritpack")
class PackedLM(TemplateLM):  # type: ignore[misc]
    """A packed file as a model of the harness. path and options: those of tritpack.runtime.model.Model.

    The tokens that the checkpoint's tokenizer puts before a text are put there once.
    """

    def __init__(self, path: str | Path, **options: Any) -> None:
        super().__init__()
        self.model = Model(path, **options)
        self.tokens = self.model.tokenizer
        self.model.require_logits()

    @property
    def max_length(self) -> int:
        return self.model.context_length

    @property
    def eot_token_id(self) -> int:
        for token in (self.tokens.eos_id, *sorted(self.tokens.stop_ids)):
            if token is not None:
                return token
        raise Unsupported("its tokenizer has no end-of-text token, which the harness needs", path=self.model.file.path)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has no context."""
        begin = self.tokens.encode("")[:1]
        return begin[0] if begin else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        return str(self.model.file.path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        begins = self.tokens.bos_token
        if add_special_tokens is None:  # a chat template may have rendered the BOS already
            add_special_tokens = not (begins and string.startswith(begins))
        return self.tokens.encode(string, add_special=add_special_tokens)

    # -- log-likelihoods -----------------------------------------------------------------------------------------------

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **options: Any
    ) -> list[Scored]:
        # Sorted requests share as much of their contexts as possible; results have the order of the requests.
        order = sorted(range(len(requests)), key=lambda index: requests[index][1] + requests[index][2])
        results: list[Scored] = [(0.0, True)] * len(requests)
        for index in tqdm(order, disable=disable_tqdm, desc="loglikelihood"):
            pair, context, continuation = requests[index]
            results[index] = self.score(context, continuation)
            if pair is not None:
                self.cache_hook.add_partial("loglikelihood", pair, results[index])
        return results

    def score(self, context: Sequence[int], continuation: Sequence[int]) -> Scored:
        """Return the sum of ln p over the continuation's tokens, and whether each token is the likeliest.

        A context that is too long is cut on its left. Raises UsageError if the continuation alone is too long.
        """
        if not continuation:
            return 0.0, True
        if len(continuation) > self.max_length:
            raise UsageError(f"{len(continuation)} tokens to score do not fit in {self.max_length} positions")
        tokens = [*context, *continuation][-(self.max_length + 1) : -1]
        logits = self._last_logits(tokens, len(continuation))
        rows = np.arange(len(continuation))
        score = float(log_softmax(logits)[rows, list(continuation)].sum())
        return score, bool((logits.argmax(-1) == continuation).all())

    def _last_logits(self, tokens: list[int], wanted: int) -> Any:
        """Logits of the last `wanted` tokens; tokens that the session has already are not evaluated again."""
        shared = common_prefix(self.model.tokens, tokens[: len(tokens) - wanted])
        self.model.rewind(shared)
        return self.model.eval_last(tokens[shared:], wanted)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        results = []
        for request in tqdm(requests, disable=disable_tqdm, desc="loglikelihood_rolling"):
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            score = sum(self.score(*make_disjoint_window(window))[0] for window in windows)
            results.append(score)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), score)
        return results

    # -- text ----------------------------------------------------------------------------------------------------------

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        results = []
        for request in tqdm(requests, disable=disable_tqdm, desc="generate_until"):
            context, settings = request.args
            until = settings.get("until") or []
            until = [until] if isinstance(until, str) else list(until)
            count = int(settings.get("max_gen_toks", MAX_NEW_TOKENS))
            sampled = settings.get("do_sample", False)
            params = SamplingParams(
                temperature=float(settings.get("temperature", 0.0)) if sampled else 0.0,
                top_p=float(settings.get("top_p", 1.0)),
                top_k=int(settings.get("top_k", 0)) if sampled else 0,
            )
            prompt = self.tok_encode(context)[-(self.max_length - min(count, self.max_length - 1)) :]
            steps = stream_tokens(self.model, self.tokens, Request(prompt, count, params, stop_strings=until))
            results.append(collect(steps).text)
            self.cache_hook.add_partial("generate_until", request.args, results[-1])
        return results

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.tokens.chat_template or ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return chat_text(self.tokens, chat_history, add_generation_prompt)


def evaluate(
    path: str | Path,
    tasks: Sequence[str],
    *,
    include_path: str | Path | None = None,
    limit: float | None = None,
    num_fewshot: int | None = None,
    chat: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Run tasks of the harness by name, and return what `tritpack eval --json` prints, and its table.

    include_path: a folder with YAML files of further tasks. limit: documents per task; below 1, a share of them. chat:
    use the file's chat template. options: those of Model. Raises UsageError for an unknown task, Unreadable if the data
    of a task cannot be read.
    """
    if include_path is not None and not Path(include_path).is_dir():
        raise Unreadable("is not a folder", path=include_path)
    lm = PackedLM(path, **options)
    try:
        manager = TaskManager(include_path=None if include_path is None else str(include_path))
        if unknown := [task for task in tasks if not manager.match_tasks([task])]:
            raise UsageError(
                f"there is no task {unknown[0]!r}",
                hint="`lm-eval ls tasks` lists those of the harness; --include-path adds others",
            )
        results = simple_evaluate(
            model=lm, tasks=list(tasks), num_fewshot=num_fewshot, limit=limit, apply_chat_template=chat,
            task_manager=manager, log_samples=False,
        )  # fmt: skip
    except (TritpackError, KeyboardInterrupt):
        raise
    except Exception as error:  # tasks and the readers of their data raise many kinds
        sentence = " ".join(str(error).split())[:300] or type(error).__name__
        raise Unreadable(f"the tasks failed: {sentence}", hint="most tasks download their data from the Hub") from error
    finally:
        kernels = lm.model.kernels()
        lm.model.close()
    assert results is not None
    return {
        "schema": SCHEMA,
        "file": str(path),
        "file_sha256": lm.model.file.sha256,
        "results": {task: _plain(figures) for task, figures in results["results"].items()},
        "versions": results["versions"],
        "num_fewshot": results["n-shot"],
        "samples": {task: counts["effective"] for task, counts in results["n-samples"].items()},
        "harness": results.get("lm_eval_version"),
        "kernels": kernels,
        "table": make_table(results),
    }


def _plain(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in figures.items()}
