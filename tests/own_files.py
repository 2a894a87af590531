"""A small set as people have them: an annotation file beside its pictures."""

import numpy as np
from tiny_files import annotation_file, write_picture

NAMES = ("dog", "Red_Boat", "bow_(weapon)", "hot dog")
SIDE = 50


def write_set(folder, shows, *, federated=False, seed=0, pictures=True):
    """A file `set.json` whose image i shows the classes `shows[i]`; returns its path."""
    classes = range(1 + max(c for own in shows for c in own))
    categories = [
        {"id": c + 1, "name": [*NAMES, f"class {c}"][min(c, len(NAMES))]} for c in classes
    ]
    rng, ids = np.random.default_rng(seed), [7 * i + 1 for i in range(len(shows))]
    for i in ids if pictures else ():
        write_picture(folder / f"{i}.jpg", SIDE, rng)
    boxes = [
        (i, c + 1, (4 * (c % 3), 4, SIDE // 2, SIDE // 3))
        for i, own in zip(ids, shows, strict=True)
        for c in own
    ]
    images = {key: {} for key in ids}
    return annotation_file(folder / "set.json", images, boxes, categories, federated=federated)
