"""What soft labels cost, as a share of the training step of the demo recipe they would be part of.

The baseline is the step from pixels without a teacher. Soft labels of annotated boxes do not
change while CLIP is frozen, so the shipped recipes store them with the cached maps and pay once.
"""

from functools import partial

from benchmarks.step import STEPS, Way, pixels_of, train_steps
from benchmarks.timing import shortest, show
from richsem.config import Profile
from richsem.data.categories import spoken_names
from richsem.minilvis.render import prepare
from richsem.models.clip import FrozenClip
from richsem.recipes import dino_recipes
from richsem.structures import Batch
from richsem.training.build import build
from richsem.training.loading import StepLoader
from richsem.training.teacher import Teacher

BASELINE = "step from pixels"


def main(repeats: int = 3, profile: Profile = "demo") -> None:
    """Prints milliseconds per step with and without looking at the regions."""
    recipe = dino_recipes.baseline(profile)
    prepare(recipe.data)
    setup = build(recipe)
    device = next(setup.detector.parameters()).device.type
    loader = StepLoader([pixels_of(setup)], setup.config.train, range(STEPS))
    batches = [batch.to(device) for (batch,) in loader]
    boxes = sum(len(target.labels) for batch in batches for target in batch.targets) / STEPS
    data = setup.config.data
    clip = FrozenClip(data.teacher)
    text = clip.text_features(spoken_names(setup.dataset.categories))
    zoom = clip.config.short_side / max(data.transform.short_sides)  # as in training
    runs = {
        "step from cached maps": partial(train_steps, setup, Way("cached", True, True)),
        BASELINE: partial(train_steps, setup, Way("pixels", False, True)),
        "teacher, roi": partial(look, Teacher(clip, text, zoom=zoom), batches),
        "teacher, crop": partial(look, Teacher(clip, text, mode="crop"), batches),
    }
    times = {name: value / STEPS for name, value in shortest(runs, repeats, device).items()}
    rows = [
        {
            "": name,
            "ms per step": 1000 * value,
            "ms per box": 1000 * value / boxes if name.startswith("teacher") else "",
            f"share of the {BASELINE}": f"{value / times[BASELINE]:.0%}",
        }
        for name, value in times.items()
    ]
    size = setup.config.train.batch_size
    show(f"soft labels of {size} images, {boxes:.0f} boxes, on {device}", rows)


def look(teacher: Teacher, batches: list[Batch]) -> None:
    """Soft labels of all boxes of the batches."""
    for batch in batches:
        teacher(batch)
