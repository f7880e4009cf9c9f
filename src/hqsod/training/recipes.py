"""Recipes: how a network is trained, read from TOML and checked before anything runs.

A recipe comes with the package (see `hqsod/recipes`) or from a path. Its `task` says what it
trains, PurNet where it says nothing. Single values can be set on top of it, and the whole of it is
saved beside what it trained.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hqsod.errors import SettingsError
from hqsod.training.contour import ContourRecipe
from hqsod.training.purnet_recipe import PurNetRecipe
from hqsod.training.refiner import RefinerRecipe
from hqsod.training.upscaler import UpscalerRecipe

TrainingRecipe = PurNetRecipe | UpscalerRecipe | RefinerRecipe | ContourRecipe
KINDS: Mapping[str, type[TrainingRecipe]] = {
    "purnet": PurNetRecipe,
    "upscaler": UpscalerRecipe,
    "refiner": RefinerRecipe,
    "contour": ContourRecipe,
}


def read_recipe(source: str, changes: Iterable[str] = ()) -> TrainingRecipe:
    """Read a recipe and set single values on top of it.

    Args:
        source: the name of a recipe that comes with the package, or a path.
        changes: `table.key=value` with a TOML value, such as `stage1.steps=100`.

    Raises:
        SettingsError: no such recipe, not TOML, an unknown key, or a value out of range.
    """
    return _checked(source, _read_toml(source), changes)


def change_recipe(recipe: TrainingRecipe, changes: Iterable[str]) -> TrainingRecipe:
    """Set single values on top of a recipe; see `read_recipe`."""
    return _checked(recipe.task, recipe.model_dump(mode="json"), changes)


def _checked(source: str, values: dict[str, Any], changes: Iterable[str]) -> TrainingRecipe:
    for change in changes:
        _set(values, change)
    task = values.get("task", "purnet")
    if task not in KINDS:
        raise SettingsError(
            f"recipe {source}: task = {task!r}", expected=f"one of {', '.join(KINDS)}"
        )
    try:
        return KINDS[task].model_validate(values)
    except ValidationError as error:
        raise _refusal(source, KINDS[task], error) from None


def _refusal(source: str, kind: type[TrainingRecipe], error: ValidationError) -> SettingsError:
    """The first thing that is wrong with a recipe, in a line."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the recipe"
    if first["type"] == "extra_forbidden":
        near = get_close_matches(key, _names(kind.model_json_schema()), n=3, cutoff=0.4)
        return SettingsError(
            f"recipe {source}: {key}",
            expected="a setting that exists",
            fix=f"the closest settings are {', '.join(near)}" if near else "leave it out",
        )
    if first["type"] == "missing":
        return SettingsError(f"recipe {source}: no {key}", expected="a value for it")
    expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    got = key if isinstance(first["input"], dict) else f"{key} = {first['input']!r}"
    return SettingsError(f"recipe {source}: {got}", expected=expected)


def _names(schema: Mapping[str, Any], table: str = "root") -> list[str]:
    """The settings of a recipe and of its tables, `table.key`, from its schema."""
    here = schema if table == "root" else schema["$defs"][table]
    names = []
    for name, value in here.get("properties", {}).items():
        inner = [part["$ref"] for part in (value, *value.get("anyOf", ())) if "$ref" in part]
        tables = [ref.rpartition("/")[2] for ref in inner]
        names += [f"{name}.{key}" for each in tables for key in _names(schema, each)] or [name]
    return names


def _read_toml(source: str) -> dict[str, Any]:
    packaged = resources.files("hqsod") / "recipes" / f"{source}.toml"
    file = Path(str(packaged)) if packaged.is_file() else Path(source)
    if not file.is_file():
        names = sorted(Path(str(f)).stem for f in (resources.files("hqsod") / "recipes").iterdir())
        raise SettingsError(
            f"recipe {source}: no such file", expected=f"a path or one of {', '.join(names)}"
        )
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"recipe {source}: {error.strerror}", expected="a file") from None
    except RecursionError:
        raise SettingsError(
            f"recipe {source}: nested too deep", expected="tables and lists"
        ) from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError(f"recipe {source}: {error}", expected="TOML") from None


def _set(values: dict[str, Any], change: str) -> None:
    """Set `table.key=value` in nested tables; a value that is not TOML is taken as text."""
    path, equals, text = change.partition("=")
    if not equals:
        raise SettingsError(f"--set {change}", expected="table.key=value, such as stage1.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    *tables, key = path.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise SettingsError(f"--set {change}", expected=f"{table!r} to be a table")
    values[key] = value
