"""The card of a release: README.md with the front matter that the Hub expects.

Every fact comes from the files of the folder: the metadata of the GGUFs, their attestations and reports. What they do
not say, such as a licence, is left out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tritpack.converter.cli.human import size
from tritpack.converter.release.attestation import attestation_name
from tritpack.converter.release.outputs import Output, outputs_of
from tritpack.converter.report import markdown
from tritpack.converter.report.render import shown
from tritpack.converter.sources.hub import REPO
from tritpack.converter.targets.layout_choice import ROUNDING_KEY
from tritpack.converter.verify.provenance import RECORDED
from tritpack.converter.verify.rungs.reproduction import recorded_options
from tritpack.formats.errors import Unreadable, UsageError
from tritpack.formats.files import atomic_output
from tritpack.formats.printable import printable

NAME = "README.md"
LIBRARY = "gguf"
TAGS = ("gguf", "bitnet", "ternary", "1.58-bit", "tritpack")
LICENCE = {"license": "general.license", "license_name": "general.license.name", "license_link": "general.license.link"}
FRONT_MATTER = (*LICENCE, "base_model", "base_model_relation", "library_name", "pipeline_tag", "language", "tags")
"""The keys that a card may have, in their order."""
HASHED = re.compile(r"^\| `([^`|]+)` \|.*\| `([0-9a-f]{64})` \|$", re.MULTILINE)
"""A row of the table of files."""


def write_card(
    folder: str | Path, *, text: str = "", front_matter: Mapping[str, Any] | None = None, force: bool = False
) -> Path:
    """Write README.md for the GGUF files of a folder, and return its path.

    text: paragraphs about the model, which are shown as they are. front_matter: values that the files do not record, or
    record otherwise, by FRONT_MATTER; one that is None or empty is left out.
    Raises UsageError for another key, and if there is a card and `force` is not given; Unreadable, WriteFailed.
    """
    data = card(outputs_of(folder), text=text, front_matter=front_matter or {}).encode("utf-8")
    path = Path(folder) / NAME
    with atomic_output(path, len(data), force=force) as stream:
        stream.write(data)
    return path


def card(outputs: Sequence[Output], *, text: str, front_matter: Mapping[str, Any]) -> str:
    """Return the text of a card, see write_card."""
    import yaml
    from jinja2 import DictLoader, Environment, StrictUndefined

    if unknown := sorted({*front_matter} - {*FRONT_MATTER}):
        raise UsageError(f"the front matter of a card has no {unknown[0]!r}", hint=f"it has {', '.join(FRONT_MATTER)}")
    head = _front_matter(outputs)
    if front_matter.get("license") not in (None, head["license"]):
        head |= dict.fromkeys(LICENCE)  # the name and the link that the files record belong to the other licence
    head |= front_matter
    head = {key: head[key] for key in FRONT_MATTER if head.get(key)}
    template = (resources.files("tritpack.converter.release") / "templates" / "card.md.j2").read_text("utf-8")
    environment = Environment(
        loader=DictLoader({NAME: template}),
        autoescape=False,  # the filters text and code escape for Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"text": markdown.text, "code": markdown.code, "size": size}
    rendered: str = environment.get_template(NAME).render(
        front_matter=yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000),
        title=_text(outputs[0].file.metadata.get("general.name")) or outputs[0].name,
        paragraphs=[part for part in re.split(r"\n\s*\n", text.strip()) if part],
        repository=head.get("base_model"),
        is_repository=_is_repository(head.get("base_model")),
        compared=_compared(outputs),
        outputs=outputs,
        figures=_figures,
        command=_command,
        reproduce=lambda output: map(printable, _reproduce(output)),
        has_recipe=(outputs[0].file.path.parent / "recipe.yaml").is_file(),
        is_local=(proof := outputs[0].attestation) is not None and "repository" not in proof.predicate["source"],
    )
    return rendered


def hashes_in(text: str) -> list[tuple[str, str]]:
    """Return the names and SHA-256 in the rows of a card, in their order: one that somebody has changed may give a file
    several."""
    return [(match[1], match[2]) for match in HASHED.finditer(text)]


# -- front matter ------------------------------------------------------------------------------------------------------


def _front_matter(outputs: Sequence[Output]) -> dict[str, Any]:
    """What the files say of themselves and of their source."""
    metadata = outputs[0].file.metadata
    repository, _ = _origin(outputs[0])
    task = "text-generation" if outputs[0].spec.pooling == "none" else "feature-extraction"
    tags = [*TAGS, *(tag for tag in _texts(metadata.get("general.tags")) if tag != task)]
    return {
        **{key: _text(metadata.get(recorded)) for key, recorded in LICENCE.items()},
        "base_model": repository,
        "base_model_relation": "quantized" if repository else None,
        "library_name": LIBRARY,
        "pipeline_tag": task,
        "language": _texts(metadata.get("general.languages")),
        "tags": list(dict.fromkeys(tags)),
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return []
    return [str(item) for item in value]


def _origin(output: Output) -> tuple[str | None, str | None]:
    """The repository and commit of the source: as proved, else as the file records."""
    if output.attestation is not None and "repository" in (source := output.attestation.predicate["source"]):
        return source["repository"], source.get("commit")
    repository, commit = (_text(output.file.metadata.get(key)) for key in RECORDED.values())
    return (repository, commit) if _is_repository(repository) else (None, None)


def _is_repository(name: Any) -> bool:
    return isinstance(name, str) and REPO.fullmatch(name) is not None


# -- the body ----------------------------------------------------------------------------------------------------------


def _compared(outputs: Sequence[Output]) -> str:
    """What was compared of all files; empty if that is not attested of each."""
    for output in outputs:
        rungs = output.attestation.predicate["rungs"] if output.attestation else ()
        if not any(rung["name"] == "weights" and rung["verdict"] == "pass" for rung in rungs):
            return ""
    lost = max(_rounding(output) for output in outputs)
    changed = (
        f" Scales that a layout does not hold were changed, by a factor of at most 1 ± {lost:.2g}." if lost else ""
    )
    return f"Every code and every scale was compared with its source.{changed}"


def _rounding(output: Output) -> float:
    """By how much scales were changed. Raises Unreadable for a record that is not a number."""
    value = output.file.metadata.get(ROUNDING_KEY, 0.0)
    if not isinstance(value, (int, float)):
        raise Unreadable(f"metadata key {ROUNDING_KEY} is not a number", path=output.file.path)
    return float(value)


def _figures(rung: Mapping[str, Any]) -> str:
    """Short figures of a rung of report.json, in words."""
    return ", ".join(f"{key} {value}" for key, value in shown(rung.get("figures", {})).items() if len(value) < 24)


def _command(output: Output, command: str) -> str:
    """The command of an engine for a file. An embedding model continues no prompt."""
    if output.spec.pooling != "none":
        return f'tritpack embed {shlex.quote(output.name)} -p "Once upon a time" -o embedding.npy'
    return command.format(file=shlex.quote(output.name))


def _reproduce(output: Output) -> Iterator[str]:
    """The commands that make a file again and prove it, without a recipe."""
    repository, commit = _origin(output)
    source = shlex.quote(f"{repository}@{commit}") if repository and commit else repository or "SOURCE"
    attested = output.attestation.predicate if output.attestation is not None else {}
    quantize = attested.get("options", {}).get("quantize")
    options = recorded_options(output.file, quantize)
    name, quantized = shlex.quote(output.name), f" --quantize {quantize}" if quantize else ""
    words = [f"--outtype {shlex.quote(options.outtype)}"]
    if options.embedding_type != "auto":
        words.append(f"--embedding-type {options.embedding_type}")
    if options.target != "tritpack":
        words.append(f"--for {shlex.quote(options.target)}")
    words += ["--allow-scale-rounding"] * options.allow_scale_rounding
    words += ["--allow-wrong-engine"] * options.allow_wrong_engine
    yield f"tritpack convert {source} -o {name} {' '.join(words)}{quantized}"
    level = f" --level {attested['level']}" if attested else ""
    yield f"tritpack verify {name} --source {source}{level}{quantized}"
    if attested:
        yield f"tritpack check {name} --attestation {shlex.quote(attestation_name(output.name).name)} --source {source}"
