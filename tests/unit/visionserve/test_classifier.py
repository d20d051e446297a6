import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.unit.conftest import LABELS, TinyBundle
from visionserve.classifier import Classification, Classifier, softmax
from visionserve.errors import BundleError, UnsupportedImage
from visionserve.novelty import Reference


@pytest.fixture(scope="module")
def classifier(tiny: TinyBundle) -> Classifier:
    return Classifier.load(tiny.directory)


def test_probabilities_are_the_tempered_softmax_of_the_logits(classifier: Classifier, tiny: TinyBundle) -> None:
    logits = classifier.engine.run(tiny.images).logits
    for classification, row in zip(classifier.classify(tiny.images), logits, strict=True):
        np.testing.assert_array_equal(classification.probabilities, softmax(row / 2.0))
        assert classification.probabilities.sum() == pytest.approx(1)


def test_the_top_labels_come_most_probable_first() -> None:
    classification = Classification(LABELS, np.array([0.2, 0.7, 0.1], dtype=np.float32), 0.5, np.zeros((3, 1, 1)))
    assert [(p.label, p.index) for p in classification.top(2)] == [("square", 1), ("circle", 0)]
    assert len(classification.top(99)) == 3


def test_equal_probabilities_keep_the_cards_order() -> None:
    classification = Classification(LABELS, np.full(3, 1 / 3, dtype=np.float32), 0.5, np.zeros((3, 1, 1)))
    assert [p.index for p in classification.top(3)] == [0, 1, 2]


def test_softmax_stands_large_logits() -> None:
    np.testing.assert_array_equal(softmax(np.array([1000.0, -1000.0], dtype=np.float32)), [1, 0])


@pytest.mark.parametrize("classes", [1, 2, 7, 102, 129, 1000])
def test_softmax_of_a_batch_is_that_of_each_image_alone_to_the_bit(classes: int) -> None:
    logits = np.random.default_rng(classes).normal(size=(5, classes)).astype(np.float32) * 8
    np.testing.assert_array_equal(softmax(logits), np.stack([softmax(row) for row in logits]))


def test_an_encoded_image_becomes_what_the_network_sees(classifier: Classifier) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (17, 11), (255, 0, 0)).save(buffer, "PNG")
    prepared = classifier.prepare(buffer.getvalue())
    assert prepared.shape == (32, 32, 3)
    assert (prepared == (255, 0, 0)).all()


def test_what_is_no_image_is_refused(classifier: Classifier) -> None:
    with pytest.raises(UnsupportedImage):
        classifier.prepare(b"GET / HTTP/1.1")


def test_statistics_of_another_model_are_refused(classifier: Classifier) -> None:
    reference = classifier.reference
    other = Reference(reference.class_means[:2], reference.whitening, reference.distances)
    with pytest.raises(BundleError, match="2 classes, the card has 3"):
        Classifier(classifier.card, classifier.engine, other)
    with pytest.raises(BundleError):
        Classifier(replace(classifier.card, labels=("a", "b")), classifier.engine, reference)
