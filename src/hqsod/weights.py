"""Weight files: where they come from, whether they are whole, how they are read and written.

A registry names every file with its addresses, hash, size, licence and citation. Files are kept in
the user's cache folder, or where the environment variable HQSOD_CACHE says. A path is accepted
wherever a name is. Nothing is unpickled: `torch.load` runs with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from os.path import expanduser, isfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hqsod.addresses import write_bytes
from hqsod.errors import InputError, OutputError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

CACHE_VARIABLE = "HQSOD_CACHE"


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A published weight file.

    Attributes:
        name: what users call it.
        file: its file name in the cache.
        urls: addresses to try, in this order; empty for a file that ships with hqsod.
        digest: `sha256:...` or `md5:...`.
        size: bytes, or 0 where the publisher does not say.
        network: what it is.
        licence: the licence of the weights.
        citation: name of an entry of `dataset/citations.bib`.
        larger: how to come by something better, for files that ship with hqsod.
        row: the network's name in the tables of published scores, if it stands there.
        preparation: of a saliency network that hqsod did not export; see
            `hqsod.inference.onnx_preparation`.
    """

    name: str
    file: str
    urls: tuple[str, ...]
    digest: str
    size: int
    network: str
    licence: str
    citation: str
    larger: str = ""
    row: str = ""
    preparation: Mapping[str, object] | None = None

    @property
    def path(self) -> Path:
        """Where the file lies, or will lie once fetched."""
        if not self.urls:
            return Path(str(resources.files("hqsod") / "pretrained" / self.file))
        return cache_folder() / self.file


@cache
def registry() -> dict[str, WeightFile]:
    """Every weight file hqsod knows by name, from the package's `weights.json`."""
    entries = json.loads((resources.files("hqsod") / "weights.json").read_text("utf-8"))
    files = (WeightFile(**{**entry, "urls": tuple(entry["urls"])}) for entry in entries)
    return {file.name: file for file in files}


def cache_folder() -> Path:
    """The folder of downloaded weights: HQSOD_CACHE, or the system's place for caches."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return expanded(folder)
    import pooch  # slow to import, and only this needs it

    return Path(pooch.os_cache("hqsod"))


def expanded(text: str) -> Path:
    """A path whose `~` is the user's home; a name that merely begins with one stays as it is.

    By `os.path`, as `isfile` is below: Path's raise for unknown users, and for names too long.
    """
    return Path(expanduser(text))  # noqa: PTH111


def at_hand(name: str) -> bool:
    """Whether `name` can be used without a download: a path, or a file in the cache or package."""
    return isfile(name) or (name in registry() and registry()[name].path.is_file())  # noqa: PTH113


def describe(name: str) -> str:
    """A name or path for the user; of a file that ships with hqsod, also what would be better."""
    file = registry().get(name)
    if file is None or not file.larger:
        return name
    return f"{name}, which is small and comes with hqsod (larger: {file.larger})"


class Origin(NamedTuple):
    """Which weights a network has: their name, or the end of their path, and their SHA-256."""

    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{describe(self.name)}; sha256 {self.sha256[:16]}"  # enough to tell it from another


def resolve(name: str, *, offline: bool = False, others: Sequence[str] = ()) -> Path:
    """Find the file behind a name or path, downloading it where needed; its hash is checked.

    Args:
        name: a name in `registry()`, or the path of a file of your own (taken as it is).
        offline: never use the network.
        others: what else the caller takes in place of weights, for the message.

    Raises:
        WeightsError: no such name or file, a hash that differs, or an address out of reach.
    """
    if name not in registry():
        path = expanded(name)
        if not isfile(path):  # noqa: PTH113
            known = ", ".join((*others, *registry()))
            raise WeightsError(
                f"weights '{name}': no such name or file", expected=f"a path or one of {known}"
            )
        return path
    entry = registry()[name]
    if not entry.path.is_file():
        if offline or not entry.urls:
            raise _missing(entry, "it is not in the cache and downloads are off")
        from hqsod import download
        from hqsod.progress import console

        size = f", {entry.size / 1e6:.0f} MB" if entry.size else ""
        what = f"{entry.name} ({entry.network}{size}; licence: {entry.licence})"
        console.print(f"fetching {what} from {entry.urls[0]}", highlight=False, soft_wrap=True)
        reasons = download.fetch(entry.urls, entry.path, entry.digest, entry.size)
        if not entry.path.is_file():
            raise _missing(entry, "; ".join(reasons))
    _require_intact(entry)
    return entry.path


def _missing(entry: WeightFile, reason: str) -> WeightsError:
    return WeightsError(
        f"weights '{entry.name}': {reason}",
        fix=f"download {entry.urls[0] if entry.urls else 'its file again'} by hand and put it at "
        f"{entry.path} (or set {CACHE_VARIABLE}, or pass its path instead of the name)",
    )


def _require_intact(entry: WeightFile) -> None:
    """Check a file's hash; where MD5 alone is published, against the SHA-256 it came with.

    MD5 reveals damage and a substitute; but a file's maker can make two files with the same MD5. So
    the file that passed first stays the one in use, and the weaker, slower hash is taken only once.
    """
    record = entry.path.with_name(f"{entry.file}.{entry.digest[-8:]}.sha256")
    digest = f"sha256:{record.read_text()}" if record.is_file() else entry.digest
    if not is_intact(entry.path, digest):
        raise WeightsError(
            f"{entry.path}: its hash is not the published one, or it changed since its first check",
            expected=digest,
            fix="delete the file and fetch it again",
        )
    if not digest.startswith("sha256:"):
        with suppress(OutputError):  # a cache that others keep: checked in full each time
            write_bytes(record, sha256(entry.path).encode())


def is_intact(path: Path, digest: str) -> bool:
    """Whether the file's hash is `digest` (`sha256:...` or `md5:...`)."""
    algorithm, _, expected = digest.partition(":")
    return _hash(path, algorithm, path.stat().st_mtime_ns, path.stat().st_size) == expected


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return _hash(path, "sha256", path.stat().st_mtime_ns, path.stat().st_size)


@cache
def _hash(path: Path, algorithm: str, _modified: int, _size: int) -> str:
    """Hash once for each state of the file: time and size are there to key the cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def load(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors, on the CPU.

    Args:
        path: safetensors, or a PyTorch file whose tensors may lie under `params_ema`, `params`,
            `state_dict` or `model`.

    Raises:
        WeightsError: not such a file, damaged, holding anything but tensors, or values that are no
            numbers.
    """
    import torch

    if path.suffix == ".safetensors":
        return load_with_metadata(path)[0]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged bytes raises almost anything
        # Not PyTorch's own words: they advise to unpickle whatever it is.
        raise WeightsError(
            f"{path}: not a readable checkpoint",
            expected="a PyTorch or safetensors file that holds tensors alone",
        ) from error
    for key in ("params_ema", "params", "state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in state.items()
    ):
        raise WeightsError(f"{path}: holds more than named tensors", expected="a state dict")
    _require_ordinary(path, state)
    _require_finite(path, state)
    return dict(state)


def load_with_metadata(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and the text metadata of a safetensors file, such as the network's settings.

    Raises:
        WeightsError: not a safetensors file, damaged, or holding values that are no numbers.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: {error}", expected="a whole safetensors file") from error
    _require_finite(path, state)
    return state, metadata


def _require_ordinary(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are sparse, nested, without data, or larger than the data they show.

    A file of a kilobyte can hold one number as a tensor of a terabyte.
    """
    import torch

    for name, tensor in state.items():
        ordinary = not tensor.is_nested and tensor.layout is torch.strided
        if (
            not ordinary
            or tensor.is_meta
            or tensor.is_complex()
            or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
        ):
            raise WeightsError(
                f"{path}: {name} is no ordinary tensor",
                expected="dense tensors of real numbers, each with data of its own",
                fix="fetch or export the weights again",
            )


def _require_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that would make every result empty without a word."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise WeightsError(
                f"{path}: NaN or infinity in {name}",
                expected="finite weights",
                fix="fetch or train them again",
            )


def save(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, whole or not at all; equal ones to equal bytes.

    Args:
        path: ends in `.safetensors`.
        state: names and tensors.
        metadata: text kept in the header, such as the network's settings.
    """
    from safetensors.torch import save as to_bytes

    if path.suffix != ".safetensors":
        raise InputError(f"{path}", expected="a name that ends in .safetensors")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_bytes(path, _in_order(to_bytes(tensors, dict(metadata))))


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes it in an order of chance.

    The format: the header's length in eight bytes, the header as JSON padded to a multiple of
    eight, the tensors.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]
