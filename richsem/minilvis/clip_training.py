"""Pre-training of the small CLIP on captioned regions of scenes of the whole emoji vocabulary.

The image tower's trunk is frozen, so every region is seen by it once: `extract` paints scenes,
reads each region in both ways (as a crop and by RoIAlign from the whole scene) and stores the
cuts in half precision, in resumable shards. `train` then fits pooling, projection and text tower
with a symmetric contrastive loss in which every pair that shares a caption counts as positive.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align
from tqdm import tqdm

from richsem import kept, paths, processes, shards
from richsem.config import config_hash
from richsem.data.drawn import PretrainConfig, pretrained_file
from richsem.minilvis.glyphs import glyph_names, vocabulary
from richsem.minilvis.scenes import BACKGROUNDS, Thing, box_of, paint_scene
from richsem.models.clip import MINI, ROIS, FrozenClip
from richsem.models.miniclip import MINI_PROMPTS, create_miniclip, mini_tokenizer, save_miniclip
from richsem.paths import write_atomic
from richsem.provenance import dumps, stamp

_SHARD = 50  # scenes


def prepared(config: PretrainConfig) -> Path:
    """The small CLIP of another recipe, which the cache keeps; trained where it is not there."""
    file = pretrained_file(config)
    with paths.only_one(file, wait=True):
        if not file.is_file():
            pretrain(config, file)
    return file


def pretrain(config: PretrainConfig, target: Path) -> dict[str, float]:
    """Paints, extracts, trains and writes the small CLIP's parameters to `target`.

    Beside them it writes their provenance, a JSON file of the same name. Returns the last running
    loss and the learnt tau.
    """
    started = time.perf_counter()
    result = train(config, extract(config), target)
    record = stamp(config, [config.seed], {"pictures": _painter()}, started)
    write_atomic(target.with_suffix(".json"), dumps({"result": result, "provenance": record}))
    return result


# --- regions ---------------------------------------------------------------------------------


def extract(config: PretrainConfig) -> list[Path]:
    """Paints the scenes and stores their regions; returns the shard files, finished ones kept."""
    recipe = config_hash(PretrainConfig(seed=config.seed, scenes=config.scenes, size=config.size))
    folder = paths.CACHE / f"miniclip-{recipe}-{_painter()}"
    parts = shards.cut(folder, config.scenes, _SHARD, suffix=".safetensors")
    with processes.worker_pool(processes.own_cores()) as pool:
        make = partial(_extract_shard, config)
        shards.complete(parts, make, title="regions for CLIP", unit="scene", pool=pool)
    return [part.path for part in parts]


def _painter() -> str:
    """What today's code paints, as a hash."""
    return kept.key(trace=("pictures",))[:8]


def _extract_shard(config: PretrainConfig, shard: shards.Shard) -> None:
    torch.set_num_threads(1)
    model = create_miniclip()
    model.visual.trunk.norm = nn.Identity()  # cuts are standardised in training
    clip = FrozenClip(MINI, model)
    stems = sorted(glyph_names())
    groups = {stem: c.group for c in vocabulary("lvis") for stem in c.glyphs}
    cuts: dict[str, list[Tensor]] = {"crop": [], "roi": []}
    labels = []
    for index in shard.items:
        rng = np.random.default_rng([config.seed, index])
        chosen = rng.choice(len(stems), size=rng.integers(3, 7), replace=False)
        things = [
            Thing(stem=stems[i], group=groups.get(stems[i], "object"), label=int(i)) for i in chosen
        ]
        scene = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
        pixels, painted = paint_scene(things, size=config.size, scene=scene, rng=rng)
        boxes = torch.tensor([box_of(p.mask) for p in painted], dtype=torch.float32).reshape(-1, 4)
        image = torch.tensor(pixels).permute(2, 0, 1)
        for mode, cut in _cuts(clip, image, boxes).items():
            cuts[mode].append(cut.half())
        labels += [p.label for p in painted]
    tensors = {mode: torch.cat(parts).contiguous() for mode, parts in cuts.items()}
    write_atomic(shard.path, save(tensors | {"label": torch.tensor(labels)}))


@torch.inference_mode()
def _cuts(clip: FrozenClip, image: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """Both cuts [N, C, 4, 4] of the regions of one scene, as the teacher pools them."""
    crops = roi_align(clip.normalise(image)[None], [boxes], clip.crop_size, **ROIS)
    dense, scale = clip.trunk_map(image)
    return {
        "crop": clip.tower.map(crops),
        "roi": roi_align(dense, [boxes], clip.grid, scale, **ROIS),
    }


# --- training --------------------------------------------------------------------------------


def train(config: PretrainConfig, files: Sequence[Path], target: Path) -> dict[str, float]:
    """Fits pooling, projection and text tower on stored cuts and writes them to `target`.

    Regions of glyphs that the recipe leaves unseen are not among them, so that no caption calls
    them; the tokens of their names stay as they were drawn.
    """
    torch.manual_seed(config.seed)
    parts, names = [load_file(path) for path in files], ("crop", "roi", "label")
    data = _seen({name: torch.cat([part[name] for part in parts]) for name in names}, config.unseen)
    del parts  # some GB
    model = create_miniclip()
    norm, sample = model.visual.trunk.norm, torch.cat([data["crop"][::7], data["roi"][::7]])
    sample = sample.float().transpose(0, 1).flatten(1)
    norm.running_mean.copy_(sample.mean(1))
    norm.running_var.copy_(sample.var(1))
    captions = Captions(sorted(glyph_names()))
    trained = [p for name, p in model.named_parameters() if not name.startswith("visual.trunk")]
    generator = torch.Generator().manual_seed(config.seed)
    batches = _batches(data, config.batch // 2, generator)
    running = float("nan")
    progress = tqdm(total=sum(config.steps), desc="small CLIP", mininterval=5)
    for cycle, steps in enumerate(config.steps):
        groups = [  # decay is for matrices
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, config.lr[cycle], total_steps=steps, pct_start=0.05, final_div_factor=1e4
        )
        for cuts, labels in islice(batches, steps):
            loss = _contrast(model, cuts, *captions.draw(labels, generator))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, np.log(100))
            running = loss.item() if np.isnan(running) else 0.98 * running + 0.02 * loss.item()
            progress.set_postfix(loss=f"{running:.3f}", refresh=False)
            progress.update()
    progress.close()
    save_miniclip(model.eval(), captions.known_tokens, target)
    return {"loss": running, "tau": float(model.logit_scale.detach().exp())}


class Captions:
    """Captions of glyphs: a name of the glyph in a prompt, as token ids."""

    def __init__(self, stems: Sequence[str]) -> None:
        """Tokenises every (name, prompt) of the glyphs once."""
        names = glyph_names()
        self.texts = sorted({name for stem in stems for name in names[stem]})
        position = {text: i for i, text in enumerate(self.texts)}
        self.names_of = [[position[name] for name in names[stem]] for stem in stems]
        tokenizer = mini_tokenizer()
        self.tokens = torch.stack(
            [tokenizer([p.format(text) for text in self.texts]) for p in MINI_PROMPTS]
        )  # [P, T, 16]
        self.known_tokens = self.tokens.unique()
        self.fits = torch.zeros(len(stems), len(self.texts), dtype=torch.bool)
        for row, own in enumerate(self.names_of):
            self.fits[row, own] = True

    def draw(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """For each glyph one of its names in a random prompt: distinct tokens [M, 16], fits [N, M].

        `fits` says which region may be called which drawn caption, so that a second dog in the
        batch is not a negative for "dog".
        """
        rows = labels.tolist()
        random = torch.rand(len(rows), generator=generator)
        texts = torch.tensor(
            [
                self.names_of[r][int(u * len(self.names_of[r]))]
                for r, u in zip(rows, random, strict=True)
            ]
        ).unique()
        prompts = torch.randint(len(self.tokens), (len(texts),), generator=generator)
        return self.tokens[prompts, texts], self.fits[labels][:, texts]


def _contrast(model: nn.Module, cuts: Tensor, tokens: Tensor, fits: Tensor) -> Tensor:
    """Symmetric contrastive loss, regions [N, C, g, g] against captions [M, 16], many positives."""
    visual = model.visual
    regions = F.normalize(visual.head(visual.trunk.norm(cuts)), dim=-1)
    text = model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp() * regions @ text.T
    target = fits.float()
    to_text = F.cross_entropy(logits, target / target.sum(1, keepdim=True))
    to_region = F.cross_entropy(logits.T, (target / target.sum(0, keepdim=True)).T)
    return (to_text + to_region) / 2


def _seen(data: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The regions less those of glyphs of a share of the rare classes."""
    rare = [one for one in vocabulary("lvis") if one.frequency == "r"]
    chosen = np.random.default_rng(0).permutation(len(rare))[: round(share * len(rare))]
    left_out = {stem for place in chosen for stem in rare[place].glyphs}
    stems = sorted(glyph_names())
    unseen = torch.tensor([row for row, stem in enumerate(stems) if stem in left_out])
    kept_rows = ~torch.isin(data["label"], unseen)
    return {name: values[kept_rows] for name, values in data.items()}


def _batches(
    data: dict[str, Tensor], half: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches: `half` crops and `half` RoIAligned cuts of other regions."""
    number = len(data["label"])
    half = min(half, number)
    while True:
        orders = {mode: torch.randperm(number, generator=generator) for mode in ("crop", "roi")}
        for start in range(0, number - half + 1, half):
            picks = {mode: order[start : start + half] for mode, order in orders.items()}
            cuts = torch.cat([data[mode][pick] for mode, pick in picks.items()]).float()
            yield cuts, torch.cat([data["label"][pick] for pick in picks.values()])
