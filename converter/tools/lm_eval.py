"""lm-evaluation-harness on a packed file (extra `eval`): our runtime as one of its models.

Imported only where the harness is installed. Contexts that several requests share are evaluated once: a session that
goes back gives the same bits as one that starts anew.
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
from tritpack.formats.files import sha256_file
from tritpack.runtime.chat import chat_text
from tritpack.runtime.generate import collect, generate
from tritpack.runtime.model import Model
from tritpack.runtime.perplexity import log_softmax
from tritpack.runtime.sampling import SamplingParams

SCHEMA = "tritpack.eval/1"
MAX_NEW_TOKENS = 256
Scored = tuple[float, bool]


@register_model("tritpack")
class PackedLM(TemplateLM):  # type: ignore[misc]
    """A packed file as the harness sees a model. path and the options as tritpack.runtime.model.Model.

    A text begins with what the checkpoint's tokenizer puts before it, once."""

    def __init__(self, path: str | Path, **options: Any) -> None:
        super().__init__()
        self.model = Model(path, **options)
        self.tokens = self.model.tokenizer
        if self.model.spec.is_embedding_model:
            raise Unsupported(f"{path}: is an embedding model, which was not trained to say a next token")
        self._seen: list[int] = []  # what the session holds

    @property
    def max_length(self) -> int:
        return self.model.context_length

    @property
    def eot_token_id(self) -> int:
        for token in (self.tokens.eos_id, *sorted(self.tokens.stop_ids)):
            if token is not None:
                return token
        raise Unsupported(f"{self.model.file.path}: its tokenizer has no end of text, which the harness needs")

    @property
    def prefix_token_id(self) -> int:
        """What a text without context is conditioned on."""
        begin = self.tokens.encode("")[:1]
        return begin[0] if begin else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        return str(self.model.file.path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        begins = self.tokens.bos_token
        if add_special_tokens is None:  # a chat template may have rendered it already
            add_special_tokens = not (begins and string.startswith(begins))
        return self.tokens.encode(string, add_special=add_special_tokens)

    # -- log-likelihoods -----------------------------------------------------------------------------------------------

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **options: Any
    ) -> list[Scored]:
        # Neighbours share as much of their contexts as possible; the answers go back in the order of the requests.
        order = sorted(range(len(requests)), key=lambda index: requests[index][1] + requests[index][2])
        results: list[Scored] = [(0.0, True)] * len(requests)
        for index in tqdm(order, disable=disable_tqdm, desc="loglikelihood"):
            pair, context, continuation = requests[index]
            results[index] = self.score(context, continuation)
            if pair is not None:
                self.cache_hook.add_partial("loglikelihood", pair, results[index])
        return results

    def score(self, context: Sequence[int], continuation: Sequence[int]) -> Scored:
        """Sum of ln p of the continuation's tokens, and whether each is the likeliest. What does not fit is cut from
        the left; the tokens scored must fit."""
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
        """Logits of the last `wanted` of these tokens; what the session has of them already is not evaluated again."""
        known = 0
        while known < min(len(self._seen), len(tokens) - wanted) and self._seen[known] == tokens[known]:
            known += 1
        self.model.rewind(known)
        self._seen = tokens[:known]
        if known < len(tokens) - wanted:
            self.model.append(tokens[known : len(tokens) - wanted])
        logits = self.model.eval_all(tokens[len(tokens) - wanted :])
        self._seen = tokens
        return logits

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
            context, wanted = request.args
            wanted = {"max_gen_toks": MAX_NEW_TOKENS, **wanted}
            until = wanted.get("until") or []
            until = [until] if isinstance(until, str) else list(until)
            count = int(wanted["max_gen_toks"])
            sampled = wanted.get("do_sample", False)
            params = SamplingParams(
                temperature=float(wanted.get("temperature", 0.0)) if sampled else 0.0,
                top_p=float(wanted.get("top_p", 1.0)),
                top_k=int(wanted.get("top_k", 0)) if sampled else 0,
            )
            prompt = self.tok_encode(context)[-(self.max_length - min(count, self.max_length - 1)) :]
            steps = generate(self.model, self.tokens, prompt, count, params, stop_strings=until)
            self._seen = []
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
    """Run tasks of the harness by name; include_path: a folder with the YAML of more. limit: of documents a task, below
    1 a share. chat: through the file's chat template. Raises UsageError for an unknown task, Unreadable if a task's
    data cannot be had."""
    if include_path is not None and not Path(include_path).is_dir():
        raise Unreadable(f"{include_path}: is no folder of tasks")
    lm = PackedLM(path, **options)
    try:
        manager = TaskManager(include_path=None if include_path is None else str(include_path))
        if unknown := [task for task in tasks if not manager.match_tasks([task])]:
            raise UsageError(
                f"there is no task {unknown[0]!r}",
                hint="`lm-eval ls tasks` lists those of the harness; --include-path adds",
            )
        results = simple_evaluate(
            model=lm, tasks=list(tasks), num_fewshot=num_fewshot, limit=limit, apply_chat_template=chat,
            task_manager=manager, log_samples=False,
        )  # fmt: skip
    except (TritpackError, KeyboardInterrupt):
        raise
    except Exception as error:  # whatever tasks and the readers of their data raise
        sentence = " ".join(str(error).split())[:300] or type(error).__name__
        raise Unreadable(
            f"the tasks cannot be run: {sentence}", hint="most tasks fetch their data from the Hub"
        ) from error
    finally:
        kernels = lm.model.kernels()
        lm.model.close()
    assert results is not None
    return {
        "schema": SCHEMA,
        "file": str(path),
        "file_sha256": sha256_file(Path(path)),
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
