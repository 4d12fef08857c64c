"""One safetensors file by itself: tensors without the config.json and tokenizer that say what they are."""

from __future__ import annotations

from pathlib import Path

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.origin import Origin, origin_of
from tritpack.converter.sources.range_file import RangeFile
from tritpack.converter.sources.remote_checkpoint import RangeShard
from tritpack.formats.inputs import Unchanged
from tritpack.formats.safetensors_reader import read_safetensors

SUFFIX = ".safetensors"


class WeightFile(CheckpointFolder):
    """A weight file as a checkpoint of which nothing else is known. config: that of its folder, {} if there is none.

    is_remote: whether its data stay on a server. Raises Unreadable, and what RangeFile.read raises.
    """

    def __init__(self, file: Path | RangeFile) -> None:
        self.is_remote = not isinstance(file, Path)
        self.generation_config, self.pooling_file, self.weight_map = {}, None, {}
        if isinstance(file, Path):
            self.folder, name, self._size = file.parent, file.name, file.stat().st_size
            self.unchanged, self.origin = Unchanged([file]), origin_of(file.parent)
            self.config = self._json("config.json", required=False)
            tensors, self.notes = read_safetensors(file)
        else:
            shard = RangeShard(file)
            self.folder, name, self._size = Path(file.shown), file.name, file.size
            self.unchanged, self.origin, self.config = Unchanged([]), Origin(), {}
            tensors, self.notes = shard.tensors, shard.note
        self.weight_files = [name]
        self.tensors = {tensor.name: tensor for tensor in tensors}

    @property
    def shard_files(self) -> list[tuple[str, int]]:
        return [(self.weight_files[0], self._size)]


def of_a_folder(path: Path) -> bool:
    """Return whether a weight file is all of the weights of a checkpoint folder."""
    if not (path.parent / "config.json").is_file():
        return False
    names = [name for name in (other.name for other in path.parent.glob(f"*{SUFFIX}")) if name.startswith("model")]
    return names == [path.name]
