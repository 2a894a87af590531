"""Which loss terms each kind of annotation switches on (METHOD 1.2, 8.1-8.3, 8.8).

`TERMS` is the table; it is plain data, so that it can be printed and read.
"""

from dataclasses import dataclass, replace

from richsem.structures import Supervision


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """Switches of the loss terms. Denoising queries follow `boxes`, `classes` and `soft`."""

    boxes: bool = False  # L1 and GIoU of the decoder layers
    classes: bool = False  # focal class loss of the decoder layers
    others: bool = True  # with it, a "no" to all classes that an image does not show
    proposal_boxes: bool = False  # L1 and GIoU of the encoder's proposals
    proposal_classes: bool = False  # focal class loss of the encoder's proposals
    soft: bool = False  # soft labels of the teacher
    image_level: bool = False  # Detic's image-level loss
    extra: bool = True  # of extra images, whose classes may have counts of their own


_BOXES = LossTerms(boxes=True, proposal_boxes=True, soft=True)
_EVERYTHING = replace(_BOXES, classes=True, proposal_classes=True)

TERMS: dict[Supervision, LossTerms] = {
    Supervision.DETECTION: _EVERYTHING,
    Supervision.IMAGE_LABELS: _EVERYTHING,
    Supervision.CAPTIONS: _EVERYTHING,
    Supervision.UNLABELLED: _BOXES,
    Supervision.BOXES_ONLY: _BOXES,
    Supervision.WHOLE_IMAGES: LossTerms(image_level=True),
}


def loss_terms(
    supervision: Supervision,
    *,
    unlabelled_boxes: bool = True,
    as_released: bool = False,
    coarse_boxes: bool = True,
    own_class_only: bool = False,
) -> LossTerms:
    """The switches for one kind of batch.

    Without `unlabelled_boxes`, the coarse boxes of unlabelled images carry soft labels alone;
    without `coarse_boxes`, those of labelled ones carry no box losses. With `as_released`, no loss
    of the encoder's proposals is ever switched off, as in the published code: where classes are
    unknown, proposals learn the placeholder class 0. With `own_class_only`, coarse boxes do not say
    which classes are absent, as nobody looked for them.
    """
    terms = replace(TERMS[supervision], extra=supervision is not Supervision.DETECTION)
    if supervision is Supervision.UNLABELLED and not unlabelled_boxes:
        terms = replace(terms, boxes=False, proposal_boxes=False)
    if supervision in (Supervision.IMAGE_LABELS, Supervision.CAPTIONS):
        terms = replace(terms, others=not own_class_only)
        if not coarse_boxes:
            terms = replace(terms, boxes=False, proposal_boxes=False)
    if as_released and not terms.image_level:
        terms = replace(terms, proposal_boxes=True, proposal_classes=True)
    return terms
