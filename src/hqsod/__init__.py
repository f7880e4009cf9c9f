"""hqsod: high-quality salient object detection.

Build high-resolution versions of saliency data sets, train PurNet on them, predict saliency maps,
cut objects out, score any method, and let a person judge the doubtful masks.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hqsod.cutout import CutOut
    from hqsod.predict import Predictor, cut_out

__version__ = "0.1.0"
__all__ = ["CutOut", "Predictor", "__version__", "cut_out"]


def __getattr__(name: str) -> Any:
    """What prediction offers, imported when it is asked for: much here does without it."""
    if name in __all__:
        from hqsod import predict

        return getattr(predict, name)
    raise AttributeError(f"module 'hqsod' has no attribute {name!r}")
