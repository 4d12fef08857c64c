"""tritpack verify."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.climb import Climb
from tritpack.converter.cli.engine_comparison import Engine, engine_options, finish
from tritpack.converter.cli.file_argument import PATH, as_gguf, quantize_option
from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.model_options import parse_tokens, read_text_argument
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.progress import Alive
from tritpack.converter.verify.rungs import DEFAULT_LEVEL, LEVELS
from tritpack.formats.errors import UsageError
from tritpack.formats.names import ExitCode

if TYPE_CHECKING:
    from tritpack.converter.verify.rung import Report, Rung

COLOURS = {"pass": "green", "fail": "red", "skipped": "yellow", "unproved": "yellow", "unsupported": "yellow"}
WORDS = {"pass": "passed", "fail": "failed", "skipped": "skipped"}


@click.command("verify")
@click.argument("file", type=PATH, metavar="FILE")
@click.option(
    "--source",
    type=PATH,
    metavar="SOURCE",
    help="The checkpoint FILE was made from: a folder, ORG/NAME[@REVISION], or a GGUF. Without it FILE is checked by "
    "itself, which proves less.",
)
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default=DEFAULT_LEVEL,
    show_default=True,
    help="The last rung to climb; those below it are climbed too. full: all rungs; nothing is sampled but the "
    "slow kernels and the built-in text of a large model.",
)
@click.option("--revision", help="Branch, tag or commit of a repository on the Hub.")
@quantize_option
@click.option(
    "--oracle",
    default="reference",
    show_default=True,
    metavar="reference|transformers|FILE.npy",
    help="What FILE's outputs are compared with: the numpy reference, transformers, or recorded ones (with --tokens).",
)
@click.option("--tokens", metavar="IDS", help="The tokens, such as 1,2,3, of the rows in --oracle FILE.npy.")
@click.option(
    "--text",
    type=PATH,
    metavar="FILE",
    help="Text for the rungs text and perplexity, - for standard input; a built-in text by default.",
)
@click.option(
    "-p", "--prompt", multiple=True, help="A text to generate from, besides a built-in one and a chat; repeatable."
)
@click.option(
    "-f",
    "--prompt-file",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="The same from a UTF-8 file; - is standard input.",
)
@click.option(
    "--golden",
    type=PATH,
    metavar="FILE",
    help="JSON file of prompts, and of the greedy tokens that FILE must generate.",
)
@click.option(
    "--against", type=PATH, metavar="FILE", help="A second packed file, whose predictions FILE's are compared with."
)
@click.option("--strict", is_flag=True, help="Fail if FILE records another hash of its source than SOURCE has.")
@engine_options
@click.option("--reproduce", is_flag=True, help="Convert SOURCE once more and compare the bytes of the two files.")
@click.option("--layers", is_flag=True, help="Print the deviation of every step through the layers.")
@click.option("--report", "folder", type=PATH, metavar="DIR", help="Write report.json, .md, .html and junit.xml there.")
@click.option(
    "--attest",
    type=PATH,
    metavar="OUT.intoto.json",
    help="If FILE passes, write an in-toto statement of what was compared and proved; `check` reads it.",
)
@click.option(
    "--bom", type=PATH, metavar="OUT.cdx.json", help="With --attest: write a CycloneDX bill of materials too."
)
@click.option(
    "--sign-key",
    type=PATH,
    metavar="KEY.pem",
    help="With --attest: sign the attestation with this private key, as OUT.intoto.json.sig.",
)
@click.option("--force", is_flag=True, help="Overwrite what --report and --attest write.")
@json_option
@click.option("--json-schema", is_flag=True, is_eager=True, expose_value=False, callback=lambda *a: _print_schema(*a),
              help="Print the JSON Schema of that result.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def command(
    file: str,
    tokens: str | None,
    layers: bool,
    folder: str | None,
    attest: str | None,
    bom: str | None,
    sign_key: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Prove that FILE holds the model of SOURCE, rung by rung; or check FILE by itself.

    \b
    structure   metadata, tensor table, tokenizer keys; recorded hashes are noted
    weights     every code, scale, norm and table, exactly
    kernels     every matrix kernel of this CPU gives what the scalar one gives, on tensors of FILE
    tokenizer   the same token ids for awkward strings, the same rendered chats
    logits      the C runtime agrees with an independent oracle, layer by layer
    text        the same on ordinary text, within a tolerance
    generation  the oracle's greedy tokens, and the same bits from every ISA and thread count
    perplexity  that of the oracle, within error bars

    FILE runs with a KV cache of floats, whose answers are the reference.

    Without --source it checks what FILE alone can show (structure, recorded hashes, kernels, tokenizer, and whether the
    model produces language), and ends with "not proved: no source". --level takes structure, weights, kernels,
    tokenizer, perplexity and full then.

    Give --quantize if convert was given it.

    The exit code is 0 if nothing is wrong, 1 if anything is wrong in FILE, 2 for wrong usage, 3 if FILE, SOURCE or
    another input cannot be read, 4 if SOURCE is not supported, FILE is not a ternary model, or FILE alone is of an
    architecture that tritpack does not know, 5 if the report cannot be written, 7 if something is not installed.
    """
    from tritpack.converter.report.render import prepare_folder, write_report
    from tritpack.converter.verify.ladder import verify
    from tritpack.formats.printable import printable

    engine = Engine.from_options(options)
    if engine is not None and options["source"] is None:
        with as_gguf(file) as path:
            finish(engine.ask(str(path), options["text"]), as_json=as_json)
        return
    prompt_files = options.pop("prompt_file")
    texts = [read_text_argument(path).removesuffix("\n") for path in prompt_files]
    options["prompt"] = (*options["prompt"], *texts)
    ids = None if tokens is None else parse_tokens(tokens)
    if layers and options["level"] in LEVELS[: LEVELS.index("logits")]:
        raise UsageError(f"--layers is for the rung logits, and --level {options['level']} stops before it")
    source = options["source"]
    for option, value in (("--attest", attest), ("--layers", layers)):
        if value and source is None:
            raise UsageError(f"{option} is for what was compared with a source", hint="give --source")
    named = (file, source, options["oracle"], options["text"], options["golden"], options["against"])
    if folder is not None:
        prepare_folder(folder, force=force, inputs=(*named, *prompt_files))
    proof = _Proof.prepare(attest, bom, sign_key, force=force, inputs=(*named, *prompt_files))
    with as_gguf(file) as path, Alive(quiet=quiet) as alive:
        if proof is not None and str(path) != file:
            raise UsageError("--attest is for a GGUF itself, and this is converted or unpacked first", path=file)
        climb = Climb(path, options["level"], alive, text=options["text"], alone=source is None, quiet=quiet)

        def climbed(rung: Rung) -> None:
            alive.hide()
            if not as_json:
                _print_rung(rung, layers=layers)

        report = verify(path, tokens=ids, progress=climb.begin, climbed=climbed, **options)
        asked = None if engine is None or report.verdict == "fail" else engine.ask(str(path), options["text"])
    report.file = printable(file)
    if as_json:
        print_json(report.as_json() | ({} if asked is None else {"engine": asked.as_json()}))
    else:
        _print_end(report)
    if folder is not None:
        for written in write_report(folder, report, force=True):
            click.echo(f"wrote {written}", err=True)
    if proof is not None:
        for written in proof.write(report, file, force=force):
            click.echo(f"wrote {written}", err=True)
    if report.verdict == "fail":
        sys.exit(ExitCode.CHECK_FAILED)
    if report.verdict == "unsupported":
        sys.exit(ExitCode.UNSUPPORTED)
    if asked is not None:
        finish(asked, as_json=as_json, printed=True)


@dataclasses.dataclass(frozen=True)
class _Proof:
    """The outputs of --attest, --bom and --sign-key."""

    attest: str
    bom: str | None
    sign_key: str | None

    @classmethod
    def prepare(
        cls, attest: str | None, bom: str | None, sign_key: str | None, *, force: bool, inputs: Iterable[str | None]
    ) -> _Proof | None:
        """Refuse before the work what cannot be written after it. None if nothing is to be attested."""
        from tritpack.converter.release import bill_of_materials, signing
        from tritpack.formats.files import refuse_existing

        if attest is None:
            for option, value in (("--bom", bom), ("--sign-key", sign_key)):
                if value is not None:
                    raise UsageError(f"{option} is for --attest, which is not given")
            return None
        outputs = [Path(attest)]
        if bom is not None:
            bill_of_materials.require_extra()
            outputs.append(Path(bom))
        if sign_key is not None:
            signing.require_extra()
            outputs.append(signing.signature_name(attest))
        for output in outputs:
            refuse_existing(output, force=force, inputs=(*inputs, sign_key))
        return cls(attest, bom, sign_key)

    def write(self, report: Report, file: str, *, force: bool) -> Iterator[Path]:
        """Write each, and yield its path."""
        from tritpack.converter.release.attestation import write_attestation
        from tritpack.converter.release.bill_of_materials import write_bill_of_materials
        from tritpack.converter.release.signing import sign

        yield write_attestation(report, self.attest, file=file, force=force)
        if self.sign_key is not None:
            yield sign(self.attest, self.sign_key, force=force)
        if self.bom is not None:
            yield write_bill_of_materials(self.bom, file=file, attestation=self.attest, force=force)


def _print_rung(rung: Rung, *, layers: bool) -> None:
    from tritpack.converter.report.render import shown_figures
    from tritpack.converter.verify.compare.layers import LIMIT
    from tritpack.formats.printable import printable

    mark = click.style(f"{WORDS[rung.verdict]:<7}", fg=COLOURS[rung.verdict])
    figures = ", ".join(f"{key} {value}" for key, value in shown_figures(rung).items() if len(value) < 40)
    said = figures if rung.skipped is None else printable(rung.skipped)
    click.echo(f"{mark} {rung.name:<10} {rung.seconds or 0:6.1f} s  {said}".rstrip())
    for sentence in rung.sentences:
        click.echo(f"        {click.style(printable(sentence), fg='red')}")
    for note in rung.notes:
        click.echo(f"        note: {printable(note)}")
    series = rung.series if layers and rung.name == "logits" else {}
    for layer, point, error in zip(*(series.get(key, ()) for key in ("layer", "point", "step_error"))):
        place = f"layer {layer} {point}" if layer >= 0 else point
        click.echo(f"        {place:<24} {error:.1e}" + ("" if error <= LIMIT else "  DEVIATES"))


def _print_end(report: Report) -> None:
    about = report.provenance
    click.echo(f"file    {about['file_sha256']}")
    machine = about["machine"]
    cpu = f"{machine['isa'] or 'no C library'} on {machine['cpu']}, {machine['cores']} cores"
    if report.source is None:
        click.echo(f"machine {cpu}")
    else:
        click.echo(f"source  {about['source_sha256']}\noracle  {about['oracle']}; {cpu}")
    verdict = click.style(report.verdict.upper(), fg=COLOURS[report.verdict], bold=True)
    against = "" if report.source is None else f" against {report.source}"
    click.echo(f"{verdict}: {report.file}{against}: {report.conclusion}")
    if report.verdict == "unproved":
        for open_question in report.not_proved:
            click.echo(f"not proved: {open_question}")
        click.echo("not proved: no source")


def _print_schema(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from tritpack.converter.report.render import schema

        print_json(schema())
        context.exit()
