"""The formats, each with how it writes a shard and what it calls it.

- `imagefolder`: Hugging Face ImageFolder, a `metadata.jsonl` in each shard's folder.
- `webdataset`: tar shards of `KEY.image.png`, `KEY.mask.png`, `KEY.json`.
- `parquet`: files with the images inside, which `datasets` decodes.
- `coco`: for each split a folder of images with `annotations.json`, for tools that annotate.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsod import extras
from hqsod.export_dataset.coco import instances
from hqsod.export_dataset.items import Item

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)
ROWS_AT_ONCE = 25  # pairs of a Parquet row group, held in memory together


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    Attributes:
        write: writes a shard of pairs at a path.
        shard: the shard's path within the export; `{split}` and `{number}` stand for its own.
            Without a number a split is one shard.
        files: a pattern of what `datasets` loads of a split; empty where it cannot.
        reads_masks: whether masks are read, not copied.
    """

    write: Callable[[Path, Sequence[Item]], None]
    shard: str
    files: str = ""
    reads_masks: bool = False

    def plan(self, split: str, items: Sequence[Item], most: int) -> dict[str, Sequence[Item]]:
        """The shards of a split, `most` pairs in each."""
        step = most if "{number" in self.shard else max(1, len(items))
        return {
            self.shard.format(split=split, number=number): items[first : first + step]
            for number, first in enumerate(range(0, len(items), step))
        }

    def names(self, shard: str) -> bool:
        """Whether this format gives such a name to a shard."""
        pattern = re.escape(self.shard.format(split="SPLIT", number=0))
        pattern = pattern.replace("SPLIT", "|".join(SPLITS).join("()")).replace("00000", r"\d{5,}")
        return re.fullmatch(pattern, shard) is not None


def _write_imagefolder(part: Path, items: Sequence[Item]) -> None:
    (part / "masks").mkdir(parents=True)
    lines = []
    for item in items:
        image, mask = f"{item.stem}{item.image.suffix}", f"masks/{item.stem}{item.mask.suffix}"
        shutil.copyfile(item.image, part / image)
        shutil.copyfile(item.mask, part / mask)
        about = {"file_name": image, "mask_file_name": mask, **item.about}
        lines.append(json.dumps(about, ensure_ascii=False) + "\n")
    (part / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")


def _write_coco(part: Path, items: Sequence[Item]) -> None:
    (part / "images").mkdir(parents=True)
    names = [f"{item.stem}{item.image.suffix}" for item in items]
    for item, name in zip(items, names, strict=True):
        shutil.copyfile(item.image, part / "images" / name)
    (part / "annotations.json").write_text(instances(items, names), encoding="utf-8")


def _write_webdataset(part: Path, items: Sequence[Item]) -> None:
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
        for item in items:
            key = item.stem
            if "." in key:  # a reader's key ends at the first dot: replaced, and kept unlike others
                key = f"{key.replace('.', '_')}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
            about = json.dumps(item.about, ensure_ascii=False).encode()
            for kind, data in (
                (f"image{item.image.suffix}", item.image.read_bytes()),
                (f"mask{item.mask.suffix}", item.mask.read_bytes()),
                ("json", about),
            ):
                member = tarfile.TarInfo(f"{key}.{kind}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def _write_parquet(part: Path, items: Sequence[Item]) -> None:
    extras.require("export", "--format parquet")
    import pyarrow as pa
    from pyarrow import parquet

    file = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kinds = {"stem": "string", "version": "string", "trust": "float64", "flagged": "bool"}
    features = {name: {"dtype": kind, "_type": "Value"} for name, kind in kinds.items()}
    features |= {name: {"_type": "Image"} for name in ("image", "mask")}
    plain = {"string": pa.string(), "float64": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema(
        [(name, plain[kind]) for name, kind in kinds.items()] + [("image", file), ("mask", file)],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    with parquet.ParquetWriter(part, schema, compression="none") as writer:
        for rows in _chunks(items):
            table = [
                item.about | {"image": _embedded(item.image), "mask": _embedded(item.mask)}
                for item in rows
            ]
            writer.write_table(pa.Table.from_pylist(table, schema))


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for first in range(0, len(items), ROWS_AT_ONCE):
        yield items[first : first + ROWS_AT_ONCE]


def _embedded(path: Path) -> dict[str, Any]:
    return {"bytes": path.read_bytes(), "path": path.name}


FORMATS = {
    "imagefolder": Format(_write_imagefolder, "data/{split}/shard-{number:05d}", "data/{split}/**"),
    "webdataset": Format(_write_webdataset, "data/{split}-{number:05d}.tar", "data/{split}-*.tar"),
    "parquet": Format(
        _write_parquet, "data/{split}-{number:05d}.parquet", "data/{split}-*.parquet"
    ),
    "coco": Format(_write_coco, "{split}", reads_masks=True),
}
