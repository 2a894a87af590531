"""The README's lines from published files to AP, on files of their names with numbers of noise."""

import json
import re
import shlex

import pytest
import torch
from raw_releases import SIZE, picture
from tiny_centernet2 import published_centernet2
from tiny_dino import published_dino, without_text

from richsem import paths
from richsem.models.backbones import Backbone, BackboneConfig
from richsem.models.centernet2.cascade import CascadeConfig, MaskConfig
from richsem.models.centernet2.centernet2 import CenterNet2, CenterNet2Config
from richsem.training import runs

README = (paths.ROOT / "README.md").read_text(encoding="utf-8")
LINES = re.findall(
    r"^(?:FILE=(\S+).*\n)?python -m richsem (convert .*lvis_v1_val.*)\n"
    r"python -m richsem (evaluate \S+ .*--images DATA)  # (box|mask) AP (\S+), rare (\S+)",
    README,
    re.MULTILINE,
)
CLASSES = 1203  # of LVIS v1


def weights(name):
    """What a file of this name holds; backbones are whole, all else is small."""
    backbone = BackboneConfig(frozen_stride=0)
    if name[0].isupper():  # Detic's
        sizes = {"dim": 8, "tower": 2, "text_dim": 12, "masks": MaskConfig(dim=6, depth=3)}
        sizes["cascade"] = CascadeConfig(pooled=3, hidden=16)
        config = CenterNet2Config(backbone=backbone, num_classes=CLASSES, semantic=False, **sizes)
        texts = torch.nn.functional.normalize(torch.randn(CLASSES, 12))
        return published_centernet2(CenterNet2(config, texts))
    state = published_dino(Backbone(backbone))
    return state if name.startswith("richsem") else without_text(state, CLASSES + 1)


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=lambda line: line[2].split()[1])
def test_lines_lead_from_a_published_file_to_ap_beside_the_stated(
    line, tmp_path, own_cache, monkeypatch, cli
):
    monkeypatch.setattr(runs, "held_clip", lambda state: None)  # see test_clip_weights
    texts = torch.randn(CLASSES + 1, 32)
    monkeypatch.setattr(runs, "official_text", lambda clip, names: texts)
    file, convert, evaluate, kind, ap, rare = line
    convert = shlex.split(convert.replace("$FILE", file))
    monkeypatch.chdir(tmp_path)
    torch.save({"model": weights(convert[1])}, convert[1])
    box = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [4, 4, 20, 20], "area": 400}
    box |= {"segmentation": [[4, 4, 24, 4, 24, 24, 4, 24]]}
    image = {"id": 7, **SIZE, "coco_url": "http://images.cocodataset.org/val2017/000000000007.jpg"}
    image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    classes = [{"id": i, "name": f"name {i}", "frequency": "rcf"[i % 3]} for i in range(1, 1204)]
    (tmp_path / "DATA" / "val2017").mkdir(parents=True)
    (tmp_path / "DATA" / "val2017" / "000000000007.jpg").write_bytes(picture())
    content = {"images": [image], "annotations": [box], "categories": classes}
    (tmp_path / "DATA" / "lvis_v1_val.json").write_text(json.dumps(content))

    cli(*convert)
    said = cli(*shlex.split(evaluate), "--max-images", 1).out

    assert "1 images, lvis protocol" in said and "all 1,203 classes" in said
    assert re.search(rf"published for .* {kind} AP {ap}, APr {rare}", said), said
    assert ("mask_AP" in said or "segm" in said or "mask" in said) == (kind == "mask")


def test_all_r50_rows_of_table_4_have_lines():
    assert len(LINES) == 4
