"""A second look: unsure images are classified once more, closer; the answer says so and depends on no batch mate."""

import base64
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.conftest import TinyBundle
from training.export import gates
from visionserve import batch
from visionserve.classifier import Classifier
from visionserve.client.results import read_native, read_v2
from visionserve.errors import BundleError, ImageTooLarge
from visionserve.model_card import ModelCard, SecondLook
from visionserve.request_parsing import RawRequest
from visionserve.transforms import Preprocessing, load, load_closer

ALWAYS = SecondLook(below=1.0, zoom=0.5)


def file_of(seed: int, size: tuple[int, int] = (40, 60)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def classifier_of(tiny: TinyBundle, policy: SecondLook | None) -> Classifier:
    plain = Classifier.load(tiny.directory)
    return Classifier(replace(plain.card, second_look=policy), plain.engine, plain.reference)


def requests(count: int) -> list[RawRequest]:
    return [RawRequest(str(seed), {"body": file_of(seed)}, {}) for seed in range(count)]


def test_the_answer_is_the_mean_of_both_looks_and_says_so(tiny: TinyBundle) -> None:
    classifier, data = classifier_of(tiny, ALWAYS), file_of(1)
    first = classifier.classify(classifier.prepare(data)[None])[0]
    second = classifier.classify(classifier.prepare_closer(data, first)[None])[0]
    (reply,) = batch.answer(classifier, [RawRequest("", {"body": data}, {})], 4).replies
    (looked,) = reply.classifications
    np.testing.assert_array_equal(looked.probabilities, (first.probabilities + second.probabilities) / 2)
    assert looked.novelty == first.novelty
    np.testing.assert_array_equal(classifier.classify_file(data).probabilities, looked.probabilities)
    content = json.loads(reply.content.body)
    assert content["second_look"] is True
    assert read_native(content, "", {}).second_look


@pytest.mark.parametrize("policy", [None, SecondLook(below=0.01, zoom=0.5)], ids=["none", "never unsure"])
def test_a_sure_answer_is_the_one_without_a_policy_to_the_byte(tiny: TinyBundle, policy: SecondLook | None) -> None:
    bodies = [
        batch.answer(classifier_of(tiny, each), requests(3), 4).replies[0].content.body for each in (policy, None)
    ]
    assert bodies[0] == bodies[1]
    assert b"second_look" not in bodies[0]


def test_a_second_look_depends_on_no_batch_mate(tiny: TinyBundle) -> None:
    """Also where some images of a batch are looked at again, others are not, and one is broken."""
    plain = batch.answer(classifier_of(tiny, None), requests(6), 4).replies
    middle = float(np.median([reply.classifications[0].probabilities.max() for reply in plain]))
    classifier = classifier_of(tiny, SecondLook(below=middle, zoom=0.6))
    asked = requests(6)
    asked.insert(2, RawRequest("broken", {"body": b"no image"}, {}))
    together = batch.answer(classifier, asked, 4).replies
    alone = [batch.answer(classifier, [request], 4).replies[0] for request in asked]
    assert [reply.content for reply in together] == [reply.content for reply in alone]
    assert sum(reply.classifications[0].second_look for reply in together if reply.status == 200) == 3


def test_v2_states_how_many_images_were_looked_at_twice(tiny: TinyBundle) -> None:
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1]}
    body = {"inputs": [tensor | {"data": [base64.b64encode(file_of(1)).decode()]}]}
    request = RawRequest("", {"body": json.dumps(body).encode()}, {"content-type": "application/json"})
    (reply,) = batch.answer(classifier_of(tiny, ALWAYS), [request], 4).replies
    content = json.loads(reply.content.body)
    assert content["parameters"] == {"second_look": 1}
    assert read_v2(content, "", {}).second_look


@pytest.mark.parametrize("what", ["nobody waits", "no time to decode", "too large to decode again"])
def test_what_bounds_the_extra_work_keeps_the_first_look(
    tiny: TinyBundle, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, request = classifier_of(tiny, ALWAYS), requests(1)[0]
    if what == "nobody waits":
        request = replace(request, expires_at=time.time() + 1000)
        run = classifier.engine.run

        def slow(images: np.ndarray) -> object:
            monkeypatch.setattr(time, "time", lambda: request.expires_at + 1)
            return run(images)

        monkeypatch.setattr(classifier.engine, "run", slow)
    elif what == "no time to decode":
        monkeypatch.setattr(batch, "DECODE_BUDGET_S", -1.0)
    else:
        monkeypatch.setattr(classifier, "prepare_closer", raising(ImageTooLarge("no memory")))
    (reply,) = batch.answer(classifier, [request], 4).replies
    assert reply.status == 200
    assert "second_look" not in json.loads(reply.content.body)


def raising(error: Exception) -> Callable[..., None]:
    def raise_it(*_arguments: object) -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("point", "top", "left"),
    [((0.5, 0.5), 10, 30), ((0.0, 1.0), 20, 10), ((1.0, 0.0), 0, 50)],
    ids=["centre", "lower left", "upper right"],
)
def test_the_closer_square_is_centred_on_the_point_as_far_as_the_image_reaches(
    point: tuple[float, float], top: int, left: int
) -> None:
    """Of 40 x 80 pixels the first square is the central 40 x 40, the second one 20 x 20."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    closer = load_closer(file.getvalue(), Preprocessing(20, 1.0), 0.5, point)
    np.testing.assert_array_equal(closer, pixels[top : top + 20, left : left + 20])


def test_a_zoom_of_one_would_be_the_first_look() -> None:
    data = file_of(3)
    np.testing.assert_array_equal(load_closer(data, Preprocessing(32), 1.0, (0.5, 0.5)), load(data, Preprocessing(32)))


def test_the_card_keeps_the_policy_and_leaves_out_none(tiny: TinyBundle, tmp_path: Path) -> None:
    card = ModelCard.load(tiny.directory / "card.json")
    assert "second_look" not in card.text()
    replace(card, second_look=SecondLook(0.5, 0.7)).save(tmp_path / "card.json")
    assert ModelCard.load(tmp_path / "card.json").second_look == SecondLook(0.5, 0.7)


@pytest.mark.parametrize(
    "entry",
    [
        {"below": 0.5},
        {"below": 0, "zoom": 0.7},
        {"below": 0.5, "zoom": 1},
        {"below": 0.5, "zoom": 0.7, "x": 1},
        "often",
    ],
    ids=["without zoom", "below 0", "zoom 1", "unknown entry", "a word"],
)
def test_a_policy_that_cannot_be_meant_is_refused(tiny: TinyBundle, tmp_path: Path, entry: object) -> None:
    content = json.loads((tiny.directory / "card.json").read_text()) | {"second_look": entry}
    (tmp_path / "card.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"second_look|required entry"):
        ModelCard.load(tmp_path / "card.json")


def test_a_network_without_class_maps_has_no_second_look(tiny: TinyBundle) -> None:
    with pytest.raises(BundleError, match=r"needs class maps"):
        replace(ModelCard.load(tiny.directory / "card.json"), heatmap=False, second_look=ALWAYS)


def test_the_archives_gate_compares_second_looks_alone_and_together(tiny: TinyBundle) -> None:
    classifier = classifier_of(tiny, SecondLook(0.5, 0.7))
    finding = gates.second_look(classifier.card, tiny.images, classifier.engine, tiny.directory)
    assert (finding.measured, finding.passed) == (0, True)
