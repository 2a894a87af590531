"""Table 3 and the table of extra data, from numbers that are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from richsem import results, supplement
from richsem.data.categories import Category
from richsem.structures import Supervision
from richsem.studies import other_tails, seeds


def frame_of(values, metrics=("AP", "AP50")):
    """Arm -> a value per seed, the same for every metric."""
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "metric": metric, "value": float(value)}
        for arm, own in values.items()
        for seed, value in enumerate(own)
        for metric in metrics
    )


@pytest.fixture
def table3():
    return frame_of(
        {
            "visual_genome: baseline": (10, 11, 12),
            "visual_genome: richsem": (12, 13.5, 14),
            "openimages: baseline": (30, 31, 29),
            "openimages: richsem": (31, 29, 29),
        }
    )


def test_table_3_has_each_set_with_its_difference_and_the_papers_values(table3):
    rows = other_tails.table3_rows(table3, status="trend at demo scale")
    results.checked_table(rows, "table3_other_datasets")
    assert list(dict.fromkeys(rows["row"])) == [
        "visual_genome: baseline",
        "visual_genome: richsem",
        "visual_genome: richsem - baseline",
        "openimages: baseline",
        "openimages: richsem",
        "openimages: richsem - baseline",
    ]
    table = rows.set_index(["row", "metric"])
    assert table.loc[("visual_genome: richsem - baseline", "AP"), "ours"] == pytest.approx(6.5 / 3)
    assert table.loc[("visual_genome: richsem", "AP50"), "paper"] == 12.3
    assert np.isnan(table.loc[("openimages: richsem", "AP50"), "paper"])
    assert np.isnan(table["paper"].xs("openimages: richsem - baseline").astype(float)).all()


def test_the_claim_is_judged_set_by_set(table3):
    checked = seeds.check(other_tails.TABLE3_CLAIMS, table3)
    assert checked["verdict"].tolist()[0] == "holds"
    assert checked["verdict"].tolist()[1].startswith("open")


def test_runs_of_table_3_are_unlabelled_and_by_the_coco_protocol():
    configs = other_tails.table3_runs("demo", (0, 1))
    assert len(configs) == 8
    config = configs["openimages: richsem", 1]
    assert config.data.key == "openimages" and config.train.seed == 1
    assert config.data.extra.supervision is Supervision.UNLABELLED
    assert configs["openimages: baseline", 1].data.extra is None
    assert config.data.repeat_threshold == 0 and config.loss.federated_classes == 0


def test_kinds_share_the_runs_of_table_4():
    configs = other_tails.kind_runs("demo", (3,))
    assert [arm for arm, _ in configs] == ["baseline", *supplement.KINDS]
    assert configs["baseline", 3] == supplement.table4("dino", "baseline", seed=3)
    assert configs["inet_lvis", 3] == supplement.table4("dino", "richsem", seed=3)


def test_the_table_of_kinds_quotes_nothing():
    values = {arm: (1, 2) for arm in ("baseline", *supplement.KINDS)}
    rows = other_tails.kind_rows(frame_of(values, ("AP", "AP_r")), status="reproduced")
    rows = results.checked_table(rows, "extra_data_kinds")
    assert rows["paper"].isna().all()
    assert "cc_unl - baseline" in set(rows["row"])
    words = other_tails.kind_words(embedded=True)
    assert words["o365_box"] == {
        "extra data": "MiniO365, boxes only",
        "annotation": "boxes without labels",
    }
    assert set(words) == {"baseline", *supplement.KINDS}


def test_classes_in_common_are_found_by_name(monkeypatch, tiny_set):
    monkeypatch.setattr(other_tails, "open_boxes", lambda *args, **options: tiny_set)
    monkeypatch.setattr(other_tails, "data_root", lambda data: None)
    mine = [Category(id=7, name="Cat"), Category(id=9, name="boat")]
    config = supplement.table4("dino", "baseline")
    assert other_tails.classes_in_common(config, mine) == (["cat"], 4)
    assert other_tails.classes_in_common(replace(config, name="x"), mine[1:]) == ([], 4)
