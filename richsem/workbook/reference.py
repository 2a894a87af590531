"""Published numbers, for reference only: no code may show them as ours.

Source: supplement of "Learning from Rich Semantics and Coarse Locations for Long-tailed Object
Detection" (NeurIPS 2023).
"""

# Table 1: systems on LVIS v1 val, percent. A value that is not stated is left out.
TABLE1 = {
    "ViTDet, ViT-H": {"parameters (M)": 692, "AP": 53.4, "data": "ImageNet-1k"},
    "EVA, Cascade Mask R-CNN": {
        "parameters (M)": 1100,
        "AP": 62.2,
        "AP_r": 55.1,
        "data": "merged-30M, Objects365",
    },
    "InternImage-H, DINO": {"parameters (M)": 2200, "AP": 63.2, "data": "Objects365"},
    "RichSem, FocalNet-H DINO": {
        "parameters (M)": 747,
        "AP": 61.2,
        "AP_r": 61.2,
        "data": "Objects365",
    },
}

# Table 2: CLIP-RN50 on true LVIS boxes, percent, top-k per box.
TABLE2 = {
    1: {"all": 16.2, "r": 16.7, "c": 16.4, "f": 15.7},
    5: {"all": 29.6, "r": 29.9, "c": 29.3, "f": 29.8},
    10: {"all": 33.9, "r": 33.1, "c": 33.7, "f": 34.6},
}

# LVIS v1 train as released: classes per frequency group.
LVIS_V1_GROUPS = {"r": 337, "c": 461, "f": 405}

# Table 3: AP by the COCO protocol, R50.
TABLE3 = {
    "visual_genome": {"baseline": {"AP": 7.3, "AP50": 11.9}, "richsem": {"AP": 7.8, "AP50": 12.3}},
    "openimages": {"baseline": {"AP": 38.9}, "richsem": {"AP": 41.0}},
}

# Table 4: LVIS v1 val, R50. Rows of DINO are box AP; those of CenterNet2 equal Detic's published
# mask AP digit for digit.
TABLE4 = {
    "dino": {
        "baseline": {"AP": 32.2, "AP_r": 24.1},
        "detic": {"AP": 33.8, "AP_r": 26.9},
        "richsem": {"AP": 35.0, "AP_r": 30.4},
    },
    "centernet2": {
        "baseline": {"AP": 31.5, "AP_r": 25.6},
        "detic": {"AP": 33.2, "AP_r": 29.7},
        "richsem": {"AP": 33.5, "AP_r": 31.0},
    },
}
