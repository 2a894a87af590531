"""What soft labels cost, as a share of the training step of the demo recipe they would be part of.

The baseline is the step from pixels without a teacher. Soft labels of annotated boxes do not
change while CLIP is frozen, so the shipped recipes store them with the cached maps and pay once.
"""

from functools import partial

import pandas as pd

from benchmarks.step import STEPS, device_of, opened, pixels_of, train_steps
from benchmarks.timing import shortest, show
from richsem.config import Profile
from richsem.data.categories import spoken_names
from richsem.models.clip import FrozenClip
from richsem.training.loading import StepLoader
from richsem.training.teacher import Teacher

BASELINE = "step from pixels"


def main(repeats: int = 3, profile: Profile = "demo") -> None:
    """Prints milliseconds per step with and without looking at the regions."""
    setup = opened(profile)
    data, train, device = setup.config.data, setup.config.train, device_of(setup)
    loader = StepLoader([pixels_of(setup)], train, range(STEPS))
    batches = [batch.to(device) for (batch,) in loader]
    boxes = sum(len(target.labels) for batch in batches for target in batch.targets) / STEPS
    clip = FrozenClip(data.teacher)
    text = clip.text_features(spoken_names(setup.dataset.categories))
    zoom = clip.config.short_side / max(data.transform.short_sides)  # as in training
    roi, crop = Teacher(clip, text, zoom=zoom), Teacher(clip, text, mode="crop")
    runs = {
        "step from cached maps": partial(train_steps, setup, cached=True, gathered=True),
        BASELINE: partial(train_steps, setup, cached=False, gathered=True),
        "teacher, roi": lambda: [roi(batch) for batch in batches],
        "teacher, crop": lambda: [crop(batch) for batch in batches],
    }
    milliseconds = 1000 / STEPS * pd.Series(shortest(runs, repeats, device))
    table = pd.DataFrame({"ms per step": milliseconds}).rename_axis("")
    table["ms per box"] = milliseconds.filter(like="teacher") / boxes
    table[f"share of the {BASELINE}"] = (milliseconds / milliseconds[BASELINE]).map("{:.0%}".format)
    title = f"soft labels of {train.batch_size} images, {boxes:.0f} boxes, on {device}"
    show(title, table.reset_index())
