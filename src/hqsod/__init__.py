"""hqsod: high-quality salient object detection.

Build high-resolution versions of saliency data sets, train PurNet on them, predict saliency maps,
cut objects out, score any method, and let a person judge the doubtful masks.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hqsod.predict import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """`Predictor`, imported when it is asked for: much here does without what it needs."""
    if name == "Predictor":
        from hqsod.predict import Predictor

        return Predictor
    raise AttributeError(f"module 'hqsod' has no attribute {name!r}")
