"""Judging a mask without ground truth, and measuring its contour."""
