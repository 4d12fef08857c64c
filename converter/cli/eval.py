"""tritpack eval."""

from __future__ import annotations

from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, as_gguf
from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.model_options import model_options
from tritpack.converter.cli.parameters import json_option
from tritpack.formats.errors import MissingRequirement


@click.command("eval")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("--tasks", required=True, metavar="NAME,...", help="Tasks of the harness, such as arc_easy,hellaswag.")
@click.option("--include-path", type=PATH, metavar="DIR", help="A folder with YAML files of further tasks.")
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    help="Documents per task; below 1, a share.",
)
@click.option("--num-fewshot", type=click.IntRange(0), help="Examples before each question; the task's own by default.")
@click.option("--chat", is_flag=True, help="Ask through the file's chat template.")
@model_options
@json_option
def command(file: str, tasks: str, as_json: bool, **options: Any) -> None:
    """Measure the quality of a packed file with tasks of lm-evaluation-harness.

    This needs the extra `eval`: pip install "tritpack[eval]". The figures are those that papers quote (acc, acc_norm,
    word_perplexity, ...), measured on this file. In lm-eval's own command line the model is called tritpack, after
    tritpack.converter.tools.lm_eval was imported.
    """
    try:
        from tritpack.converter.tools.lm_eval import evaluate
    except ImportError as error:
        raise MissingRequirement(
            f"eval needs lm-evaluation-harness, and {error.name} is not installed", hint='pip install "tritpack[eval]"'
        ) from error
    limit = options.pop("limit")
    with as_gguf(file) as path:
        result = evaluate(
            path,
            [task for task in tasks.split(",") if task],
            limit=limit if limit is None or limit < 1 else int(limit),
            **options,
        )
    table = result.pop("table")
    result["file"] = file
    if as_json:
        print_json(result)
    else:
        click.echo(table.rstrip())
