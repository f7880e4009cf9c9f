"""Building a high-quality data set: upscale, refine, judge, and the job that does it."""
