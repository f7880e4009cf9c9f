"""All that decides what a training computes: kept beside it, and held to when it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from hqsod.addresses import write_bytes
from hqsod.errors import SettingsError
from hqsod.training.recipes import TrainingRecipe
from hqsod.training.settings import Section
from hqsod.training.task import DataFolders

NAME = "plan.json"
MAY_DIFFER = {"device", "precision", "stages", "accumulate"}  # between two calls of one run
_NAMED = 4  # differences in a message

# So that a run can go on from another working directory.
Folder = Annotated[Path, AfterValidator(Path.absolute)]


class TrainingPlan(Section):
    """All that decides what a run computes.

    Attributes:
        data: folder of the data set.
        images: folder of the photographs where it is not found by itself.
        masks: folder of the masks, likewise; `masks` or `hq-masks` for DUTS-HQ.
        validation: folder of a data set to validate on; None holds out a part of `data`.
        recipe: see `recipes`.
        stages: which to train, counted from 1, in this order; None for all.
        overfit: train on this many images alone, to see that they can be learned; 0 for all.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `float32` or `bf16`.
        accumulate: in how many parts each process shows its share of a batch.
    """

    data: Folder
    images: str | None = None
    masks: str | None = None
    validation: Folder | None = None
    recipe: TrainingRecipe
    stages: tuple[int, ...] | None = None
    overfit: int = Field(default=0, ge=0)
    device: str = "auto"
    precision: str = "auto"
    accumulate: int = Field(default=1, ge=1)

    @property
    def folders(self) -> DataFolders:
        """Where its images are."""
        return DataFolders(self.data, self.images, self.masks, self.validation, self.overfit)

    def write(self, out: Path) -> None:
        """Keep it in a run's folder."""
        write_bytes(out / NAME, self.model_dump_json(indent=2).encode())


def read_plan(out: Path) -> TrainingPlan | None:
    """The plan of the run in a folder; None where there is none.

    A plan that was refused before its first step has no stage's folder, and does not count.

    Raises:
        SettingsError: `plan.json` is damaged, or of another version of hqsod.
    """
    path = out / NAME
    if not path.is_file() or not any(inner.is_dir() for inner in out.iterdir()):
        return None
    try:
        return TrainingPlan.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"{path}: {where} {first['msg']}",
            expected="the plan of a training, as this version of hqsod writes it",
            fix="name another folder with --out",
        ) from None


def require_same(before: TrainingPlan, now: TrainingPlan) -> None:
    """Check that a run goes on as it began; where it runs may change, what it computes may not.

    Raises:
        SettingsError: it would not; the message names what differs, with both values.
    """
    old, new = (_flat(plan.model_dump(mode="json", exclude=MAY_DIFFER)) for plan in (before, now))
    differences = [
        f"{key} = {new.get(key)!r} where the run has {old.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if differences:
        more = f" and {len(differences) - _NAMED} more" if len(differences) > _NAMED else ""
        raise SettingsError(
            f"--resume with {', '.join(differences[:_NAMED])}{more}",
            expected="what the run began with",
            fix="leave these options out, or name another folder with --out for another run",
        )


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested tables as one, with keys such as `recipe.stage1.steps`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[before + key] = value
    return flat
