"""hqsod: high-quality salient object detection.

Build high-resolution versions of saliency data sets, train PurNet on them, predict saliency maps,
cut objects out, score any method, and let a person judge the doubtful masks.
"""

__version__ = "0.1.0"
