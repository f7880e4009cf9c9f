"""Make the reference packages importable, so that a benchmark can run ours beside them.

Both peers (spandrel, segmentation-refinement) import torchvision. A torchvision built for another
PyTorch (a CUDA one beside a CPU torch, say) cannot load its compiled operators, and its import then
fails because it describes two operators that were never defined. `import_peer` defines the two
schemas when, and only when, that error comes. Nothing here calls those operators.

    pip install --no-deps spandrel einops torchvision segmentation-refinement
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

UNDEFINED = "operator torchvision::nms does not exist"
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None  # the schemas live as long as this object


def import_peer(name: str) -> ModuleType:
    """Import the module `name`; mend torchvision's missing operator schemas if that is what fails.

    Raises:
        SystemExit: the package is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}; pip install --no-deps {error.name} to compare") from error
    except RuntimeError as error:
        if UNDEFINED not in str(error):
            raise
    _define_schemas()
    _forget(name.partition(".")[0], "torchvision")
    return importlib.import_module(name)


def _define_schemas() -> None:
    global _library
    _library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        _library.define(schema)


def _forget(*packages: str) -> None:
    """Drop half-imported packages, so that the second import starts afresh."""
    for module in list(sys.modules):
        if module.partition(".")[0] in packages:
            del sys.modules[module]
