"""The job: a built data set in a format that people train from.

- `imagefolder`: Hugging Face ImageFolder, a `metadata.jsonl` in each shard's folder.
- `webdataset`: tar shards of `KEY.image.png`, `KEY.mask.png`, `KEY.json`.
- `parquet`: files with the pictures inside, which `datasets` decodes.

A shard has its name only once it is whole, and `export.json` says what it was made from: run again
after a kill or a change, the job makes the shards that are missing or differ.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from hqsod import __version__, images
from hqsod.dataset.decisions import Decisions, chosen, version_path, versions
from hqsod.dataset.folders import FINAL_FOLDER, IMAGES
from hqsod.dataset.manifest import File, Manifest, Record
from hqsod.errors import InputError, OutputError, SettingsError
from hqsod.progress import progress_bar

Format = Literal["imagefolder", "webdataset", "parquet"]
PAIRS_IN_SHARD = 250  # about half a gigabyte of 1600 x 1600 pairs
ROWS_AT_ONCE = 25  # pairs of a Parquet row group, held in memory together
STATE = "export.json"


@dataclass(frozen=True, slots=True)
class Item:
    """A pair as it is exported: its files and what is said of it."""

    stem: str
    image: Path
    mask: Path
    digest: str  # of everything that the exported bytes follow from
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exported:
    """What a run did.

    Attributes:
        folder: where the export stands.
        pairs: pairs in it.
        shards: shards in it.
        written: shards written in this run.
        masks: which masks were taken, in words.
        stale: final masks that are not what the decisions say today.
        failed: one line for each pair left out because a file is missing.
    """

    folder: Path
    pairs: int
    shards: int
    written: int
    masks: str
    stale: int
    failed: tuple[str, ...]


def export_dataset(
    dest: Path, form: str, folder: Path | None = None, pairs_in_shard: int = PAIRS_IN_SHARD
) -> Exported:
    """Export the data set in `dest`, or bring its export up to date.

    Args:
        dest: a data set with a manifest.
        form: a `Format`.
        folder: where the export goes; `dest/exports/FORM` where None.
        pairs_in_shard: pairs in each shard, the last one excepted.

    Raises:
        SettingsError: no such format, or a package for it is missing.
        InputError: there is no manifest, or nothing to export.
        OutputError: the folder cannot be written to, or holds something else.
    """
    if form not in get_args(Format):
        raise SettingsError(f"--format {form}", expected=", ".join(get_args(Format)))
    write, pattern = _FORMATS[form]
    folder = folder or dest / "exports" / form
    finished = _open_state(folder, form)
    items, masks, stale, failed = _items(dest)
    if not items:
        raise InputError(
            f"{dest}: nothing to export", expected="built pairs with masks", fix="build it first"
        )
    planned = {
        pattern.format(number): items[first : first + pairs_in_shard]
        for number, first in enumerate(range(0, len(items), pairs_in_shard))
    }
    _remove(folder, finished.keys() - planned.keys())
    shards = {shard: finished[shard] for shard in planned if shard in finished}
    written = 0
    with progress_bar(len(planned), f"exporting {form}", "shards") as bar:
        for shard, content in planned.items():
            digest = hashlib.sha256("".join(item.digest for item in content).encode()).hexdigest()
            if shards.get(shard) != digest or not (folder / shard).exists():
                _write_whole(folder / shard, content, write)
                shards[shard] = digest
                _save_state(
                    folder, form, {name: shards[name] for name in planned if name in shards}
                )
                written += 1
            bar.advance()
    _save_state(folder, form, shards)
    card = _card(dest, form, len(items), masks)
    images.write_bytes(folder / "README.md", card.encode())
    return Exported(folder, len(items), len(planned), written, masks, stale, tuple(failed))


def _open_state(folder: Path, form: str) -> dict[str, str]:
    """Shards that an earlier run finished, with their digests."""
    state = folder / STATE
    if state.is_file():
        told = json.loads(state.read_text())
        if told["format"] == form:
            return dict(told["shards"])
        raise OutputError(
            f"{folder}: holds {told['format']}", expected=form, fix="choose another folder"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(
            f"{folder}: holds other files", expected="an empty folder", fix="choose another folder"
        )
    _save_state(folder, form, {})
    return {}


def _save_state(folder: Path, form: str, shards: dict[str, str]) -> None:
    text = json.dumps({"format": form, "shards": shards}, indent=1)
    images.write_bytes(folder / STATE, text.encode())


def _remove(folder: Path, shards: set[str]) -> None:
    for shard in shards:
        path = folder / shard
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write_whole(
    path: Path, items: Sequence[Item], write: Callable[[Path, Sequence[Item]], None]
) -> None:
    """Write a shard under another name, then give it its own."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(path.parent, {part.name})
        write(part, items)
        _remove(path.parent, {path.name})
        part.rename(path)
    except OSError as error:
        raise OutputError(
            f"{path}: {error.strerror or error}", fix="free space, then run the same command again"
        ) from error


def _items(dest: Path) -> tuple[list[Item], str, int, list[str]]:
    """What is exported, which masks these are, how many are stale, and what is missing."""
    final = (dest / FINAL_FOLDER).is_dir()
    with Manifest.open(dest) as manifest, Decisions.open(dest) as decisions:
        records = [record for record in manifest.latest().values() if record.status == "built"]
        latest = decisions.latest()
    items, failed, stale = [], [], 0
    for record in records:
        version = chosen(record, latest.get(record.stem)) if final else [*versions(record)][-1]
        mask = f"{FINAL_FOLDER}/{record.stem}.png" if final else version_path(record, version or "")
        if final and not (dest / mask).is_file():
            stale += version is not None
            continue
        try:
            item, as_decided = _item(dest, record, dest / mask, version)
        except OSError as error:
            failed.append(f"{record.stem}: {error.filename}: {error.strerror}")
            continue
        items.append(item)
        stale += final and not as_decided
    meaning = "final masks" if final else "the last version of each, decisions left aside"
    return items, meaning, stale, failed


def _item(dest: Path, record: Record, mask: Path, version: str | None) -> tuple[Item, bool]:
    """The pair as exported, and whether its mask is the version decided on."""
    image = dest / record.outputs[IMAGES].path
    image.stat()  # a missing file is told now, not in the middle of a shard
    digest = hashlib.sha256(mask.read_bytes()).hexdigest()
    known: dict[str, File] = {path.path: path for path in record.outputs.values()}
    source = known.get(version_path(record, version)) if version else None
    linked = image.parent.is_symlink()  # its masks were compressed anew
    as_decided = version is not None and (source is None or linked or source.sha256 == digest)
    about = {
        "stem": record.stem,
        "version": version or "",
        "trust": record.score,
        "flagged": record.flagged,
    }
    told = json.dumps([record.outputs[IMAGES].sha256, digest, about])
    return Item(record.stem, image, mask, told, about), as_decided


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
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise SettingsError(
            "--format parquet without pyarrow", fix="pip install 'hqsod[export]'"
        ) from error
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kinds = {"stem": "string", "version": "string", "trust": "float64", "flagged": "bool"}
    features = {name: {"dtype": kind, "_type": "Value"} for name, kind in kinds.items()}
    features |= {name: {"_type": "Image"} for name in ("image", "mask")}
    plain = {"string": pa.string(), "float64": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema(
        [(name, plain[kind]) for name, kind in kinds.items()]
        + [("image", picture), ("mask", picture)],
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


# How each format writes a shard, and what its shards are called.
_FORMATS: dict[str, tuple[Callable[[Path, Sequence[Item]], None], str]] = {
    "imagefolder": (_write_imagefolder, "data/train/shard-{:05d}"),
    "webdataset": (_write_webdataset, "data/train-{:05d}.tar"),
    "parquet": (_write_parquet, "data/train-{:05d}.parquet"),
}


def _card(dest: Path, form: str, pairs: int, masks: str) -> str:
    path = "data/train/**" if form == "imagefolder" else f"{Path(_FORMATS[form][1]).parent}/train-*"
    source = dest / "README.md"
    body = source.read_text() if source.is_file() else f"# {dest.resolve().name}\n"
    return f"""---
license: other
task_categories:
- image-segmentation
tags:
- salient-object-detection
configs:
- config_name: default
  data_files:
  - split: train
    path: {path}
---

Exported with hqsod {__version__} as {form}: {pairs} pairs; masks: {masks}. Columns: `image`,
`mask`, `stem`, `version` (which mask it is), `trust` (0 to 1, of the refined mask), `flagged`.
What follows is the card of the data set it was exported from.

{body}"""
