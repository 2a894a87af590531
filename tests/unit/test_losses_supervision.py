from dataclasses import asdict

from richsem.losses.supervision import TERMS, LossTerms, loss_terms
from richsem.structures import Supervision

CLASSES = {"classes", "proposal_classes"}
BOXES = {"boxes", "proposal_boxes"}


def on(terms):
    return {name for name, value in asdict(terms).items() if value}


def test_every_kind_has_its_terms():
    everything = BOXES | CLASSES | {"soft"}
    expected = {
        Supervision.DETECTION: everything,
        Supervision.IMAGE_LABELS: everything,
        Supervision.CAPTIONS: everything,
        Supervision.UNLABELLED: BOXES | {"soft"},
        Supervision.BOXES_ONLY: BOXES | {"soft"},
        Supervision.WHOLE_IMAGES: {"image_level"},
    }
    assert {kind: on(terms) for kind, terms in TERMS.items()} == expected
    assert all(loss_terms(kind) == TERMS[kind] for kind in Supervision)


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
