"""Table 3 and the table of extra data, from numbers that are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from richsem.data.categories import Category
from richsem.structures import Supervision
from richsem.workbook import other_tails, results, supplement


def frame_of(values, metrics=("AP", "AP50")):
    """Arm -> a value per seed, the same for every metric."""
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "metric": metric, "value": float(value)}
        for arm, own in values.items()
        for seed, value in enumerate(own)
        for metric in metrics
    )


TABLE3 = other_tails.table3("demo")
KINDS = other_tails.kinds("demo")


@pytest.fixture
def table3():
    return frame_of(
        {
            "visual_genome: baseline": (10, 11, 12),
            "visual_genome: long baseline": (13, 14, 13),
            "visual_genome: richsem": (12, 13.5, 14),
            "openimages: baseline": (30, 31, 29),
            "openimages: long baseline": (20, 20.5, 21),
            "openimages: richsem": (31, 29, 29),
        }
    )


def test_table_3_has_each_set_with_its_difference_and_the_papers_values(table3):
    rows = TABLE3.rows(table3, "demo")
    results.checked_table(rows, "table3_other_datasets")
    own = ["baseline", "long baseline", "richsem"]
    own += ["richsem - baseline", "richsem - long baseline", "long baseline - baseline"]
    expected = [f"{key}: {row}" for key in ("visual_genome", "openimages") for row in own]
    assert list(dict.fromkeys(rows["row"])) == expected
    table = rows.set_index(["row", "metric"])
    assert table.loc[("visual_genome: richsem - baseline", "AP"), "ours"] == pytest.approx(6.5 / 3)
    assert table.loc[("visual_genome: richsem", "AP50"), "paper"] == 12.3
    assert np.isnan(table.loc[("openimages: richsem", "AP50"), "paper"])
    assert np.isnan(table["paper"].xs("openimages: richsem - baseline").astype(float)).all()


def test_the_claim_is_judged_set_by_set_at_equal_steps_and_at_equal_compute(table3):
    findings = TABLE3.findings(table3)
    verdicts = {finding["claim"]: finding["verdict"] for finding in findings}
    assert list(verdicts) == [
        "Unlabelled extra images help on MiniVG",
        "Unlabelled extra images help on MiniOpenImages",
        "Unlabelled extra images help on MiniVG at equal compute",
        "Unlabelled extra images help on MiniOpenImages at equal compute",
    ]
    first, second, third, fourth = verdicts.values()
    assert (first, fourth) == ("holds", "holds")
    assert second.startswith("open") and third.startswith("open")
    assert "equal detection steps: **not shown**" in other_tails.on_all(findings)
    all_hold = [{"verdict": "holds"}] * 2 + [{"verdict": "refuted"}] * 2
    words = other_tails.on_all(all_hold)
    assert "steps: **yes**" in words and "compute: **not shown**" in words


def test_claims_name_the_sets_that_were_used():
    assert all("Mini" in claim.words for claim in KINDS.claims[:-1])
    real = [claim.words for claim in other_tails.kinds("paper", root="data").claims]
    assert not any("Mini" in line for line in real)


def test_runs_of_table_3_are_unlabelled_and_by_the_coco_protocol():
    configs = TABLE3.runs((0, 1))
    assert len(configs) == 12
    config = configs["openimages: richsem", 1]
    assert config.data.key == "openimages" and config.train.seed == 1
    assert config.data.extra.supervision is Supervision.UNLABELLED
    assert configs["openimages: baseline", 1].data.extra is None
    assert config.data.repeat_threshold == 0 and config.loss.federated_classes == 0
    long, short = (configs[f"openimages: {name}", 1] for name in ("long baseline", "baseline"))
    assert long.train.steps == 1.6 * short.train.steps
    assert replace(long, name=short.name, train=short.train) == short


def test_kinds_share_the_runs_of_table_4():
    configs = KINDS.runs((3,))
    assert [arm for arm, _ in configs] == [*other_tails.BASELINES, *supplement.KINDS]
    assert configs["long baseline", 3] == supplement.control("long baseline", seed=3)
    assert configs["baseline", 3] == supplement.table4("dino", "baseline", seed=3)
    assert configs["inet_lvis", 3] == supplement.table4("dino", "richsem", seed=3)


@pytest.mark.parametrize(
    ("common", "statuses"), [(0, ["ours only"]), (3, ["not run", "ours only"])]
)
def test_the_table_of_kinds_quotes_nothing_and_knows_when_labels_are_of_no_use(common, statuses):
    values = {arm: (1, 2) for arm in (*other_tails.BASELINES, *supplement.KINDS)}
    frame = frame_of(values | {"o365_box": (3, 5)}, ("AP", "AP_r"))
    rows = other_tails.kind_rows(KINDS, frame, "paper", common=common)
    rows = results.checked_table(rows, "extra_data_kinds")
    assert rows["paper"].isna().all() and sorted(set(rows["status"])) == statuses
    assert {"cc_unl - baseline", "cc_unl - long baseline"} <= set(rows["row"])
    rows = rows[rows["metric"] == "AP"].set_index("row")
    assert rows.loc["o365", "status"] == statuses[0]
    assert common or rows.loc["o365", "ours"] == rows.loc["o365_box", "ours"] == 4
    words = other_tails.kind_words(embedded=True, common=common)
    boxes = {"extra data": "MiniO365, boxes only", "annotation": "boxes without labels"}
    assert words["o365_box"] == boxes
    assert ("not run" if common else "so the run of o365_box") in words["o365"]["annotation"]
    assert set(words) == {*other_tails.BASELINES, *supplement.KINDS, "o365"}


def test_classes_in_common_are_found_by_name(monkeypatch, tiny_set):
    monkeypatch.setattr(other_tails, "open_boxes", lambda *args, **options: tiny_set)
    monkeypatch.setattr(other_tails, "data_root", lambda data: None)
    mine = [Category(id=7, name="Cat"), Category(id=9, name="boat")]
    config = supplement.table4("dino", "baseline")
    assert other_tails.classes_in_common(config, mine) == (["cat"], 4)
    assert other_tails.classes_in_common(replace(config, name="x"), mine[1:]) == ([], 4)
