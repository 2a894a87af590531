"""Detections of a set in the file's ids and the original pixels, whatever the batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toys import CLASSES, ToyDetector, ToySet

from richsem.data.samples import DetectionTrainingSet
from richsem.data.transforms import TransformConfig
from richsem.evaluation import evaluate
from richsem.structures import DetectorOutput
from richsem.training.predict import NOT_IN_FILE, detect_image, predict

IDS = [5, 9, 30]


class Oracle(ToyDetector):
    """Finds what the targets say among four classes, in the first query slots."""

    def forward(self, batch):
        logits = torch.full((1, len(batch), 4, 4), -9.0)
        boxes = torch.full((1, len(batch), 4, 4), 0.5)
        for row, target in enumerate(batch.targets):
            number = len(target.labels)
            logits[0, row, range(number), target.labels] = 9.0
            boxes[0, row, :number] = target.boxes
        return DetectorOutput(logits=logits, boxes=boxes)


@pytest.fixture
def small():
    return TransformConfig(short_sides=(32,), max_side=64, flip=0.0, crop=0.0)


def test_a_perfect_detector_has_a_perfect_score_and_the_mode_comes_back(tiny_set, small):
    samples = DetectionTrainingSet(tiny_set, small)
    ids = [category.id for category in tiny_set.categories]
    found = predict(Oracle(), samples, ids, batch_size=2)
    result = evaluate("lvis", tiny_set.path, found)
    assert result.metrics["AP"] == pytest.approx(1.0)
    assert len(found) == 4 * 4 * len(tiny_set)  # queries x classes
    detector = ToyDetector(noise=1.0).train()
    one, two = (predict(detector, ToySet(3), IDS) for _ in range(2))
    assert detector.training
    np.testing.assert_array_equal(one.score, two.score)  # no noise in evaluation


def test_boxes_are_in_original_pixels_and_classes_that_the_file_lacks_left_out():
    class Centred(ToyDetector):
        def forward(self, batch):
            return replace(super().forward(batch), boxes=torch.full((1, 1, 4, 4), 0.5))

    found = predict(Centred(), ToySet(1, side=8), IDS)
    assert np.unique(found.bbox_xywh, axis=0).tolist() == [[6.0, 4.0, 12.0, 8.0]]  # of 24 x 16
    found = predict(ToyDetector(), ToySet(5), [NOT_IN_FILE, 9, 30])
    assert set(found.category_id.tolist()) == {9, 30}
    assert not len(predict(ToyDetector(), ToySet(0), IDS))


def test_one_picture(small):
    class Looking(ToyDetector):
        def forward(self, batch):
            self.shape, self.output = batch.images.shape, super().forward(batch)
            return self.output

    detector = Looking()
    picture = Image.new("L", (60, 30), 200)
    scores, labels, boxes = detect_image(detector, picture, small, threshold=0.0)
    assert detector.shape == (1, 3, 32, 64)
    assert len(scores) == len(labels) == len(boxes) == 4 * CLASSES
    wanted = (60 * detector.output.boxes[0, 0][:, 2]).unique()
    widths = (boxes[:, 2] - boxes[:, 0]).unique()
    torch.testing.assert_close(widths, wanted, atol=1e-3, rtol=0)
