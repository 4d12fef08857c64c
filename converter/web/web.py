"""A folder that any static host can serve, in which a model runs in the visitor's browser."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

from tritpack.converter.web import assets
from tritpack.converter.web.image import Image
from tritpack.converter.web.manifest import describe, text_files
from tritpack.formats.errors import UsageError, WriteFailed
from tritpack.formats.files import require_space
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.printable import printable
from tritpack.formats.progress import Progress, silent
from tritpack.runtime.model import Model

PART_BYTES = 24 << 20
"""Of a part of the model: hosts refuse files above 25 MiB (some), 100 MiB (others)."""
CONTEXT = 2048
MARK = "model.json"
"""The file by which a folder of an earlier run is known."""


@dataclasses.dataclass(frozen=True)
class WebFolder:
    """What was written. nbytes: of all files. memory: of the page, in bytes, with one thread."""

    path: Path
    files: list[str]
    nbytes: int
    parts: int
    memory: int
    context: int
    sha256: str


def web(
    file: str | Path,
    output: str | Path,
    *,
    name: str | None = None,
    context: int | None = None,
    kv_type: str = "f32",
    part_size: int = PART_BYTES,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> WebFolder:
    """Write the folder OUTPUT: a page on which FILE, a GGUF, runs in the browser.

    name: what the page calls the model; None takes the file's name. context: positions of the KV cache, at most the
    model's; None takes 2048. kv_type: f32 or i16. part_size: bytes of a part of the model. threads: for the golden
    prompt that is computed here. force: replace a folder that tritpack web wrote.
    Raises MissingRequirement without the page's engine or the C library, Unsupported for a model that cannot run or is
    too large, Unreadable, UsageError for an output that is something else, WriteFailed.
    """
    assets.require_engine()
    folder = Path(output).resolve()  # of a link, what it names is replaced
    refuse_folder(folder, force=force)
    if part_size < 1:
        raise UsageError(f"a part of {part_size} bytes holds nothing")
    gguf = GgufFile(file)
    with Model(gguf, threads=threads, context=context or CONTEXT, kv_type=kv_type) as model:
        model.require_logits()
        image = Image(gguf)
        manifest = describe(model, image, printable(name or Path(gguf.path).name.removesuffix(".gguf")), kv_type)
        require_space(folder.resolve(), image.size)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.resolve().parent))
        try:
            assets.copy_page(partial)
            manifest["modules"] = assets.hashes(partial, ".js", ".wasm")
            manifest["text"] = text_files(model.tokenizer, partial)
            manifest["parts"] = image.write_parts(partial, part_size, progress or silent)
            manifest["files"] = sorted([MARK, "sw.js", *(path.as_posix() for path in _files_of(partial))])
            (partial / MARK).write_text(json.dumps(manifest, ensure_ascii=False), "utf-8")
            assets.write_service_worker(partial)
            partial.chmod(0o755)
            _put_in_place(partial, folder)
        except OSError as error:
            raise WriteFailed(f"cannot be written: {error.strerror or error}", path=folder) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return WebFolder(
        Path(output),
        manifest["files"],
        sum((folder / name).stat().st_size for name in manifest["files"]),
        len(manifest["parts"]),
        manifest["memory"],
        manifest["context"],
        manifest["file"]["sha256"],
    )


def refuse_folder(folder: Path, *, force: bool) -> None:
    """Raise UsageError or WriteFailed for an output that cannot or must not be written."""
    if not folder.resolve().name:
        raise UsageError(f"{str(folder)!r} is not the name of a folder to write")
    if not folder.resolve().parent.is_dir():
        raise WriteFailed(f"the folder {folder.resolve().parent} does not exist", path=folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError("is a file, expected the name of a folder to write", path=folder)
    if folder.is_dir() and any(folder.iterdir()):
        ours = (folder / MARK).is_file() and (folder / "sw.js").is_file()
        if not ours:
            raise UsageError("is not empty, and tritpack web did not write it", path=folder, hint="name another folder")
        if not force:
            raise UsageError("exists already", path=folder, hint="pass --force to replace it")
        if strangers := sorted(_files_of(folder) - _listed(folder)):
            raise UsageError(
                f"holds what tritpack web did not write, such as {printable(str(strangers[0]))}",
                path=folder,
                hint="name another folder, or a folder inside this one",
            )


def _files_of(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def _listed(folder: Path) -> set[Path]:
    """Return the files that tritpack web wrote, as its model.json says; none for one that cannot be read."""
    try:
        return {Path(name) for name in json.loads((folder / MARK).read_text("utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _put_in_place(partial: Path, folder: Path) -> None:
    if not folder.is_dir():
        partial.rename(folder)
        return
    old = partial.with_suffix(".old")
    folder.rename(old)
    try:
        partial.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
