"""Numbers that the contour refiner and the step around it share. Needs no torch."""

from __future__ import annotations

GROUP = 4  # side of the groups of pixels that the network sees as one
REACH = 4  # groups: how far from the mask's contour pixels can change, one more or less
LEAST = 1 / 512  # keeps logits finite; half a grey level, so that 0 and 255 come back
