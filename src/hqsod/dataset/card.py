"""What a person reads of a built data set: its card (README.md) and its contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hqsod import __version__, encoding
from hqsod.addresses import write_bytes
from hqsod.dataset import refining_changes
from hqsod.dataset.citations import citations
from hqsod.dataset.contact_sheet import ROWS, contact_sheet
from hqsod.dataset.decisions import Decisions
from hqsod.dataset.folders import FINAL_FOLDER, IMAGES, MASKS, REFINED
from hqsod.dataset.manifest import Manifest, Record
from hqsod.errors import printable
from hqsod.progress import note
from hqsod.weights import WeightFile, registry

CARD, SHEET = "README.md", "contact-sheet.jpg"
SIGNED = MADE_WITH, EXPORTED_WITH = "Made with hqsod", "Exported with hqsod"

# The hub's names for how large a data set is, from the largest number of pairs down.
SIZES = (
    (1_000_000, "n>1M"),
    (100_000, "100K<n<1M"),
    (10_000, "10K<n<100K"),
    (1_000, "1K<n<10K"),
    (0, "n<1K"),
)

NETWORKS = ("upscaler", "refiner", "predictor")  # of a recipe's settings


def write(folder: Path, manifest: Manifest) -> tuple[Path, Path]:
    """Write card and contact sheet of the data set in `folder`; a README of the user's stays.

    Returns:
        The paths of both.
    """
    records = list(manifest.latest().values())
    built = [record for record in records if record.status == "built"]
    card, sheet = folder / CARD, folder / SHEET
    recipes = [manifest.recipe(key) for key in sorted({record.recipe for record in built})]
    review = _review(folder, manifest.folder, built)
    sections = (
        front_matter(len(built)) + "\n",
        _card(folder.resolve().name, records, recipes),
        review,
    )
    text = "\n".join(section for section in sections if section)
    write_readme(folder, text)
    if built:
        write_bytes(sheet, encoding.encode_jpeg(contact_sheet(folder, built)))
    return card, sheet


def write_readme(folder: Path, text: str) -> None:
    """Write the card in `folder`, unless somebody's own README is there, which is told."""
    path = folder / CARD
    if path.exists() and not is_ours(folder):
        note(f"{path}: not hqsod's, so it stays as it is; remove it to have the card")
    else:
        write_bytes(path, text.encode("utf-8", "backslashreplace"))


def is_ours(folder: Path) -> bool:
    """Whether a folder has a card of hqsod's, and not somebody's own README."""
    path = folder / CARD
    return path.is_file() and any(words.encode() in path.read_bytes() for words in SIGNED)


def front_matter(pairs: int, files: Mapping[str, str] | None = None) -> str:
    """What Hugging Face's hub reads at the head of a card.

    Args:
        pairs: pairs in the data set.
        files: for each split the pattern of its files, where the hub can load them.
    """
    size = next(name for least, name in SIZES if pairs >= least)
    lines = ["---", "license: other", "task_categories:", "- image-segmentation"]
    lines += ["tags:", "- salient-object-detection", "size_categories:", f"- {size}"]
    if files:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        lines += [f"  - split: {split}\n    path: {path}" for split, path in files.items()]
    return "\n".join([*lines, "---"])


def without_front_matter(card: str) -> str:
    """A card from its title on."""
    head, _, rest = card.partition("\n---\n")
    return rest.lstrip() if head.startswith("---\n") else card


def _card(name: str, records: Sequence[Record], recipes: Sequence[dict[str, Any]]) -> str:
    built = [record for record in records if record.status == "built"]
    count = Counter(record.status for record in records)
    networks = _networks(recipes)
    licences = "; ".join(f"{file.name}: {file.licence}" for file in networks)
    works = dict.fromkeys(["duts", *(file.citation for file in networks)])
    sections = [
        f"# {name}",
        f"{MADE_WITH} {__version__}. {count['built']} pairs built, {count['rejected']} "
        f"rejected, {sum(record.flagged for record in built)} flagged: look at those before you "
        "train on them.",
        _layout(built),
        _refining(built),
        _loading(built),
        *(_recipe(recipe) for recipe in recipes),
        _flagged(built),
        _rejected(records),
        "## Licences\n\nImages and masks keep the licences and terms of the data set they were "
        "made from; DUTS is for research. Networks: "
        f"{licences or 'none that hqsod knows by name'}.",
        "## Citations\n\nCite the source data set (DUTS, if it is that) and the networks:\n\n"
        "```bibtex\n" + "\n".join(citations()[work] for work in works) + "\n```",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _networks(recipes: Sequence[dict[str, Any]]) -> list[WeightFile]:
    """The weight files used, as far as hqsod knows them by name."""
    used = {recipe.get(role) for recipe in recipes for role in NETWORKS}
    return [file for name, file in registry().items() if name in used]


def _layout(built: Sequence[Record]) -> str:
    folders = {
        IMAGES: "the upscaled images, RGB",
        MASKS: "the masks, upscaled with Pillow's bicubic",
        REFINED: "the refined masks",
    }
    present = {Path(file.path).parts[0] for record in built for file in record.outputs.values()}
    rows = [f"- `{folder}/`: {what}" for folder, what in folders.items() if folder in present]
    return "\n".join(
        [
            "## Layout",
            "",
            *rows,
            "- `manifest.sqlite`: for each pair its sources, placement on the canvas, hashes, "
            "timings and quality figures",
            f"- `{SHEET}`: {min(ROWS, len(built))} of the pairs, whole and in close-up",
        ]
    )


def _refining(built: Sequence[Record]) -> str:
    summary = refining_changes.summarise(built)
    if summary is None:
        return ""
    told = str(summary)
    return f"## Refining\n\n{told[0].upper()}{told[1:]}.\n\n![where each changed most]({SHEET})"


def _loading(built: Sequence[Record]) -> str:
    if not built:
        return ""
    masks = REFINED if REFINED in built[0].outputs else MASKS
    return f"""## Loading

```python
from pathlib import Path

from PIL import Image

for path in sorted(Path("{IMAGES}").glob("*.png")):  # in this folder
    image, mask = Image.open(path), Image.open(Path("{masks}") / path.name)
```

`hqsod export-dataset` writes it as ImageFolder, WebDataset, Parquet or COCO."""


def _recipe(recipe: dict[str, Any]) -> str:
    rows = "\n".join(f"| {key} | {'none' if v in (None, '') else v} |" for key, v in recipe.items())
    name = recipe.get("recipe", "unknown")
    return f"## Recipe `{name}`\n\n| setting | value |\n| --- | --- |\n{rows}"


def _flagged(records: Sequence[Record]) -> str:
    rows = [
        f"- `{printable(record.stem)}`: "
        + ", ".join(f"{k} {v:.3f}" for k, v in record.quality.items())
        for record in sorted(records, key=lambda record: record.score or 0)
        if record.flagged
    ]
    return "\n".join(["## Flagged refined masks, most doubtful first", "", *rows]) if rows else ""


def _rejected(records: Sequence[Record]) -> str:
    rows = [f"- `{r.stem}`: {r.notes}" for r in records if r.status == "rejected"]
    return "\n".join(["## Rejected pairs", "", *rows]) if rows else ""


def _review(folder: Path, home: Path, built: Sequence[Record]) -> str:
    """What people decided; empty before the first decision."""
    with Decisions.open(home) as decisions:
        latest = decisions.latest()
    made = ((latest[record.stem], record) for record in built if record.stem in latest)
    choices = Counter(
        decision.kind or ""
        for decision, record in made
        if decision.is_final and decision.holds_for(record)
    )
    final = sum(1 for _ in (folder / FINAL_FOLDER).glob("*.png"))
    if not choices and not final:
        return ""
    counts = ", ".join(f"{count} {choice}" for choice, count in sorted(choices.items()))
    return (
        f"## Review\n\n{choices.total()} of {len(built)} pairs decided by a person: "
        f"{counts or 'none yet'}. `{FINAL_FOLDER}/` holds {final} masks that `hqsod apply` made "
        "from the decisions: the mask decided on; else the refined one, or the upscaled one where "
        "flagged; rejected pairs are left out.\n"
    )
