"""Published numbers, for reference only: no code may show them as ours.

Source: supplement of "Learning from Rich Semantics and Coarse Locations for Long-tailed Object
Detection" (NeurIPS 2023).
"""

# Table 2: CLIP-RN50 on true LVIS boxes, percent, top-k per box.
TABLE2 = {
    1: {"all": 16.2, "r": 16.7, "c": 16.4, "f": 15.7},
    5: {"all": 29.6, "r": 29.9, "c": 29.3, "f": 29.8},
    10: {"all": 33.9, "r": 33.1, "c": 33.7, "f": 34.6},
}

# LVIS v1 train as released: classes per frequency group.
LVIS_V1_GROUPS = {"r": 337, "c": 461, "f": 405}
