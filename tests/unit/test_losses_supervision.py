from dataclasses import asdict

import pytest

from richsem.losses.supervision import TERMS, LossTerms, loss_terms
from richsem.structures import Supervision

CLASSES = {"classes", "proposal_classes"}
BOXES = {"boxes", "proposal_boxes"}


def on(terms):
    return {name for name, value in asdict(terms).items() if value}


@pytest.mark.parametrize(
    ("supervision", "expected"),
    [
        (Supervision.DETECTION, BOXES | CLASSES | {"soft"}),
        (Supervision.IMAGE_LABELS, BOXES | CLASSES | {"soft"}),
        (Supervision.CAPTIONS, BOXES | CLASSES | {"soft"}),
        (Supervision.UNLABELLED, BOXES | {"soft"}),
        (Supervision.BOXES_ONLY, BOXES | {"soft"}),
        (Supervision.WHOLE_IMAGES, {"image_level"}),
    ],
)
def test_table(supervision, expected):
    assert on(loss_terms(supervision)) == on(TERMS[supervision]) == expected


def test_every_kind_has_a_row():
    assert set(TERMS) == set(Supervision)


def test_coarse_boxes_can_be_ignored():
    terms = loss_terms(Supervision.UNLABELLED, unlabelled_boxes=False)
    assert terms == LossTerms(soft=True)
    for supervision in set(Supervision) - {Supervision.UNLABELLED}:
        assert loss_terms(supervision, unlabelled_boxes=False) == TERMS[supervision]


def test_as_released_proposals_always_learn():
    terms = loss_terms(Supervision.UNLABELLED, unlabelled_boxes=False, as_released=True)
    assert on(terms) == {"proposal_boxes", "proposal_classes", "soft"}
    whole = Supervision.WHOLE_IMAGES
    assert loss_terms(whole, as_released=True) == TERMS[whole]
