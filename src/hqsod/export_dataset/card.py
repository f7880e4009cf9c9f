"""The card of an export: how it is loaded, and the card of the data set that it was made from."""

from __future__ import annotations

from pathlib import Path

from hqsod import __version__
from hqsod.addresses import read_bytes
from hqsod.dataset import card
from hqsod.dataset.folders import own_path
from hqsod.export_dataset.formats import FORMATS

COLUMNS = (
    "`image`, `mask`, `stem`, `version` (which mask it is), `trust` (0 to 1, of the refined mask), "
    "`flagged`"
)
# With `folder`, the export's path, before it.
LOADING = {
    "imagefolder": """from datasets import load_dataset

pairs = load_dataset(folder, split="train")
image, mask = pairs[0]["image"], pairs[0]["mask"]""",
    "webdataset": """from glob import glob

from webdataset import WebDataset

shards = sorted(glob(f"{folder}/data/train-*.tar"))
for pair in WebDataset(shards, shardshuffle=False).decode("pil"):
    image, mask, about = pair["image.png"], pair["mask.png"], pair["json"]""",
    "coco": """import json
from pathlib import Path

told = json.loads(Path(folder, "train/annotations.json").read_text())
image = Path(folder, "train/images", told["images"][0]["file_name"])""",
}
LOADING["parquet"] = LOADING["imagefolder"]


def write_card(folder: Path, dest: Path, form: str, pairs: dict[str, int], masks: str) -> None:
    """Write the README.md of the export in `folder`; one of the user's stays.

    Args:
        folder: of the export.
        dest: the data set that it was made from.
        form: one of `FORMATS`.
        pairs: pairs in each split.
        masks: which masks these are, in words.
    """
    pattern = FORMATS[form].files
    files = {split: pattern.format(split=split) for split in pairs} if pattern else {}
    counts = ", ".join(f"{count} in `{split}`" for split, count in pairs.items())
    of_source, body = own_path(dest, card.CARD), f"# {dest.resolve().name}\n"
    if of_source.is_file():
        body = read_bytes(of_source).decode(errors="replace")
    sections = (
        card.front_matter(sum(pairs.values()), files),
        f"{card.EXPORTED_WITH} {__version__} as {form}: {counts}; masks: {masks}. The name of a "
        f"pair alone decides its split. Each pair has {COLUMNS}.",
        f"## Loading\n\n```python\nfolder = {f'./{folder.resolve().name}'!r}  # from beside it\n"
        f"{LOADING[form]}\n```",
        f"What follows is the card of the data set that this was exported from.\n\n"
        f"{card.without_front_matter(body)}",
    )
    card.write_readme(folder, "\n\n".join(sections))
