"""The names of the folders of a built data set; the first three are those of DUTS-HQ."""

from __future__ import annotations

IMAGES, MASKS, REFINED = "images", "masks", "hq-masks"
CORRECTED_FOLDER = "corrected-masks"  # the versions that a person painted
FINAL_FOLDER = "final-masks"  # what hqsod apply makes of the decisions
