"""Runs and detections of the golden trace: see `golden_trace`."""

import math
from dataclasses import replace

import torch

from richsem.config import with_settings
from richsem.data.catalog import open_boxes
from richsem.data.drawn import SMOKE
from richsem.data.samples import DetectionTrainingSet
from richsem.data.transforms import MosaicConfig, ScaleJitterConfig, TransformConfig
from richsem.evaluation import evaluate
from richsem.models.clip import MINI
from richsem.models.dino.dino import DinoConfig
from richsem.recipes import centernet2_recipes, dino_recipes
from richsem.structures import Supervision
from richsem.training import build, runs
from richsem.training.loop import train
from richsem.training.optim import build_optimiser, parameter_groups, rate_factor
from richsem.training.predict import predict
from richsem.training.run_config import make_detector
from richsem.workbook import supplement

# --- runs ------------------------------------------------------------------------------------


def run_configs(profile):
    """Runs that take different paths through the code, by name; not all exist at `paper`."""
    extra, control, two = supplement.extra_kind, supplement.control, centernet2_recipes
    base = dino_recipes.baseline(profile)
    vg = {"key": "visual_genome", "profile": profile}
    controls = ["long baseline", "linear classifier", "soft labels alone", "hard labels"]
    controls += ["crop teacher"]
    if profile != "paper":  # only cached soft labels can be shuffled
        controls += ["shuffled teacher"]
    return {
        "pretraining": dino_recipes.pretraining(profile),
        "baseline": base,
        "detic": supplement.table4_run("dino", "detic", profile),
        "richsem": dino_recipes.richsem(profile),
        "inet_unl": extra("inet_unl", profile),
        "o365_box": extra("o365_box", profile),
        "captions": dino_recipes.with_extra(base, profile, "cc3m", Supervision.CAPTIONS),
        "half dropped": supplement.dropped(dino_recipes.richsem(profile), 0.5),
        "visual_genome": supplement.table3_run(extra=False, **vg),
        "visual_genome, inet_unl": supplement.table3_run(extra=True, **vg),
        "centernet2_pretraining": two.centernet2_pretraining(profile),
        "centernet2": two.centernet2(profile),
        "centernet2_detic": two.centernet2_detic(profile),
        "centernet2_richsem": two.centernet2_richsem(profile),
    } | {name: control(name, profile) for name in controls}


def variants():
    """Paths that the smoke runs do not take: no cache, moving teacher, the paper's modules."""
    full, paper = from_pixels(dino_recipes.richsem("smoke")), run_configs("paper")
    names = ("baseline", "detic", "richsem", "centernet2", "centernet2_richsem")
    found = {"from pixels": full} | {f"paper's {n}": _small_paper(paper[n]) for n in names}
    for boxes in ("pred", "pred_all"):
        found[f"teacher at {boxes}"] = with_settings(full, [f"loss.teacher_boxes={boxes}"])
    return found


def first_steps(scratch):
    """Parameters, losses and gradients of the first two steps of each kind of batch."""
    smoke = {name: few_images(config) for name, config in run_configs("smoke").items()}
    del smoke["long baseline"]  # differs in its length alone
    return {
        name: _first_steps(config, scratch / "runs" / str(number))
        for number, (name, config) in enumerate((smoke | variants()).items())
    }


def schedules():
    """Lengths and learning rates of the runs at every size; parameters of published detectors."""
    configs = {profile: run_configs(profile) for profile in ("smoke", "demo", "paper")}
    found = {
        profile: {name: _rates(config) for name, config in named.items()}
        for profile, named in configs.items()
    }
    names = ("baseline", "richsem", "centernet2", "centernet2_richsem")
    return found | {"parameters": {name: _published(configs["paper"][name]) for name in names}}


def few_images(config):
    """The run with a handful of images per set whose maps are cached."""
    extra = ["data.extra.features.images=6"] if config.data.extra else []
    return with_settings(config, ["data.features.images=8", *extra])


def from_pixels(config):
    """The run without cached features, in batches of two."""
    settings = ["data.extra.features=null", "data.features=null", "train.batch_size=2"]
    return with_settings(config, settings)


def _small_paper(config):
    """A run of the published kind whose modules, images and batches are tiny."""
    if isinstance(config.detector, DinoConfig):
        settings = ["detector.heads=4", "detector.ffn=32", "detector.queries=20"]
        settings += ["detector.encoder_layers=2"]
        transform = TransformConfig(
            short_sides=(96, 128), max_side=160, crop_short_sides=(120,), crop_range=(64, 120)
        )
    else:
        settings = ["detector.tower=2", "detector.cascade.hidden=64", "detector.cascade.regions=64"]
        transform = ScaleJitterConfig(side=128, scales=(0.5, 1.5))
    # Without warm-up, so that what clipping leaves is seen at once.
    settings += ["init=", "optim.warmup=0", "loss.federated_classes=5", "detector.dim=32"]
    settings += ["detector.backbone.name=test_resnet", "detector.backbone.weights="]
    settings += ["train.workers=0", "train.precision=no"]
    settings += ["train.batch_size=2", "train.extra_batch_size=2"]
    config = with_settings(config, settings)
    data = replace(config.data, benchmark=SMOKE, transform=transform, teacher=MINI)
    if extra := data.extra:
        mosaic = MosaicConfig(side=64) if extra.mosaic else None
        data = replace(data, extra=replace(extra, transform=transform, mosaic=mosaic))
    return replace(config, data=data)


def _first_steps(config, folder):
    setup, optim = build.build(config), config.optim
    # Rates of the first steps do not depend on the number of steps.
    schedule = replace(config.train, steps=4 if setup.extra else 2, log_every=1, judge_every=0)
    found = {
        "classes": setup.config.detector.num_classes,
        "images": len(setup.main.dataset),
        "not taken": len(setup.not_taken),
        "parameters": sum(p.numel() for p in setup.detector.parameters()),
        "groups": [_group(group) for group in build_optimiser(setup.detector, optim).param_groups],
    }
    parts = (setup.detector, setup.criterion, setup.main, setup.extra)
    pad = setup.config.detector.pad_multiple
    rows = train(*parts, schedule, optim, folder, teacher=setup.teacher, pad_multiple=pad)
    kept = ("lr", "gradient_norm", "losses")
    return found | {"steps": [{name: row[name] for name in kept} for row in rows]}


def _group(group):
    """A group of the optimiser, its tensors as their number, number of values and norm."""
    tensors = [parameter.detach().cpu().double() for parameter in group["params"]]
    norm = math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors))
    settings = {name: group[name] for name in ("lr", "weight_decay", "betas", "eps")}
    return settings | {"tensors": [len(tensors), sum(t.numel() for t in tensors), norm]}


def _rates(config):
    steps = config.train.steps
    at = sorted({0, steps // 4, steps // 2, 19 * steps // 20, steps - 1})
    factors = {str(step): rate_factor(config.optim, step, steps) for step in at}
    batches = [config.train.batch_size, config.train.extra_batch_size]
    return {"steps": steps, "batches": batches, "factors": factors}


def _published(config):
    """Parameter groups of a published detector, which is built without memory for its weights."""
    detector = with_settings(config.detector, ["backbone.weights=", "num_classes=1203"])
    with torch.device("meta"):
        model = make_detector(detector)
    groups = parameter_groups(model, config.optim).items()
    return {f"{rate:g}": [len(ps), sum(p.numel() for p in ps)] for rate, ps in groups}


# --- evaluation ------------------------------------------------------------------------------


def evaluation(benchmark):
    """Detections of both shipped start detectors on eight images, judged by both protocols."""
    found = {}
    for config in (dino_recipes.baseline("smoke"), centernet2_recipes.centernet2("smoke")):
        for key in ("lvis", "o365"):
            run = few_images(with_settings(config, [f"data.key={key}"]))
            found[f"{config.name} on {key}"] = _judged(run, benchmark)
    return found


def _judged(config, benchmark):
    dataset = open_boxes(config.data.key, "val", root=benchmark).select(range(8))
    samples = DetectionTrainingSet(dataset, config.data.transform.evaluation())
    setup = build.build(config)
    ids = runs.ids_of_classes(setup.dataset.categories, dataset.categories)
    boxes = predict(setup.detector, samples, ids)
    found = {"metrics": {}, "categories": {}, "number": len(boxes)}
    for name in ("coco", "lvis") if dataset.is_federated else ("coco",):
        result = evaluate(name, dataset.path, boxes, image_ids=dataset.image_ids.tolist())
        found["metrics"][name] = dict(result.metrics)
        found["categories"][name] = result.per_category
    columns = (boxes.image_id, boxes.category_id, boxes.score, boxes.bbox_xywh)
    rows = zip(*(column[:20].tolist() for column in columns), strict=True)
    return found | {"first": [[*numbers, *xywh] for *numbers, xywh in rows]}
