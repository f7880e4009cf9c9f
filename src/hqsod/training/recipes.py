"""Recipes: how a network is trained, read from TOML and checked before anything runs.

A recipe comes with the package (see `hqsod/recipes`) or from a path. Its `task` says what it
trains, PurNet where it says nothing. Single values can be set on top of it, and the whole of it is
saved beside what it trained.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hqsod.errors import SettingsError
from hqsod.training.contour import ContourRecipe
from hqsod.training.refiner import RefinerRecipe
from hqsod.training.stages import Recipe
from hqsod.training.upscaler import UpscalerRecipe

AnyRecipe = Recipe | UpscalerRecipe | RefinerRecipe | ContourRecipe
KINDS: Mapping[str, type[AnyRecipe]] = {
    "purnet": Recipe,
    "upscaler": UpscalerRecipe,
    "refiner": RefinerRecipe,
    "contour": ContourRecipe,
}


def read_recipe(source: str, changes: Iterable[str] = ()) -> AnyRecipe:
    """Read a recipe and set single values on top of it.

    Args:
        source: the name of a recipe that comes with the package, or a path.
        changes: `table.key=value` with a TOML value, such as `stage1.steps=100`.

    Raises:
        SettingsError: no such recipe, not TOML, an unknown key, or a value out of range.
    """
    values = _read_toml(source)
    for change in changes:
        _set(values, change)
    try:
        return _kind(source, values).model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the recipe"
        if first["type"] == "extra_forbidden":
            raise SettingsError(
                f"recipe {source}: {key}",
                expected="a setting that there is",
                fix="see docs/training.md",
            ) from None
        if first["type"] == "missing":
            raise SettingsError(f"recipe {source}: no {key}", expected="a value for it") from None
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        got = key if isinstance(first["input"], dict) else f"{key} = {first['input']!r}"
        raise SettingsError(f"recipe {source}: {got}", expected=expected) from None


def _kind(source: str, values: dict[str, Any]) -> type[AnyRecipe]:
    task = values.get("task", "purnet")
    if task not in KINDS:
        raise SettingsError(
            f"recipe {source}: task = {task!r}", expected=f"one of {', '.join(KINDS)}"
        )
    return KINDS[task]


def _read_toml(source: str) -> dict[str, Any]:
    packaged = resources.files("hqsod") / "recipes" / f"{source}.toml"
    file = Path(str(packaged)) if packaged.is_file() else Path(source)
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        names = sorted(Path(str(f)).stem for f in (resources.files("hqsod") / "recipes").iterdir())
        raise SettingsError(
            f"recipe {source}: {error.strerror}", expected=f"a path or one of {', '.join(names)}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"recipe {source}: {error}", expected="TOML") from None


def _set(values: dict[str, Any], change: str) -> None:
    """Set `table.key=value` in nested tables; a value that is not TOML is taken as text."""
    path, equals, text = change.partition("=")
    if not equals:
        raise SettingsError(f"--set {change}", expected="table.key=value, such as stage1.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, key = path.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise SettingsError(f"--set {change}", expected=f"a table before {table!r} ends")
    values[key] = value
