"""What the page says: sentences, numbers, and HTML that nobody's file name can break."""

from pathlib import Path
from typing import Any

import pytest

from ui import card, interpretation, markup, predictions
from ui.card import Bin
from ui.settings import Settings
from visionserve.client import Answer, Model, ModelName, Prediction, ResponseError, Workers

ANSWER = Answer(
    (Prediction("rose", 73, 0.9131), Prediction("sweet pea", 3, 0.0004)), 0.2, ModelName("flowers", "1.0"), ""
)
HOSTILE = "<img src=x onerror=alert(1)>\"'&.jpg"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0 %"),
        (0.0001, "< 0.1 %"),
        (0.0131, "1.3 %"),
        (0.84654, "84.7 %"),
        (0.99996, "> 99.9 %"),
        (1.0, "100.0 %"),
    ],
)
def test_a_percentage_never_claims_a_certainty_that_is_not_there(share: float, text: str) -> None:
    assert interpretation.percent(share) == text


@pytest.mark.parametrize(
    ("novelty", "probability", "kind"),
    [
        (0.5, 0.1, "familiar"),
        (0.949, 0.1, "familiar"),
        (0.95, 0.9, "unusual"),
        (0.95, 0.79, "unfamiliar"),
        (0.99, 1.0, "unfamiliar"),
    ],
)
def test_what_is_far_from_the_known_images_is_called_so(novelty: float, probability: float, kind: str) -> None:
    assert interpretation.familiarity(novelty, probability) == kind


@pytest.mark.parametrize(("reference", "kind"), [(None, "unfamiliar"), (100, "unfamiliar"), (12, "unusual")])
def test_a_rank_among_few_images_calls_none_unfamiliar(reference: int | None, kind: str) -> None:
    assert interpretation.familiarity(1.0, 0.3, reference) == kind
    assert interpretation.familiarity(0.5, 0.3, reference) == "familiar"


def test_the_warning_of_a_weak_reference_says_how_many_images_it_has() -> None:
    sentence = interpretation.warning("unusual", 1.0, "pets", 2, 12)
    assert "only 12 images tell what is usual" in sentence
    assert "12" not in interpretation.warning("unusual", 0.96, "pets", 2, 736)
    assert card.read(_model({"provenance": {"photographs": {"train": 60, "val": 12}}})).reference == 12


def _model(content: dict[str, Any]) -> Model:
    return Model("pets", "1.0", "abc", "ready", Workers(2, 2), content)


def _card() -> card.Card:
    return card.read(_model({"labels": ["rose", "sweet pea"]}))


def test_only_images_unlike_the_known_ones_get_a_warning() -> None:
    assert interpretation.warning("familiar", 0.5, "flowers", 102) == ""
    assert "does not look like any of the 102 flowers" in interpretation.warning("unfamiliar", 1.0, "flowers", 102)
    assert "unusual" in interpretation.warning("unusual", 0.96, "flowers", 102)


@pytest.mark.parametrize(
    ("probability", "words"), [(0.847, "about 85"), (0.9999, "more than 99"), (0.002, "fewer than 1")]
)
def test_a_probability_is_put_into_words(probability: float, words: str) -> None:
    assert words in (sentence := interpretation.sureness("familiar", "rose", probability))
    assert "like those the model was tested with" in sentence


def test_a_dozen_test_images_promise_nothing() -> None:
    sentence = interpretation.sureness("familiar", "rose", 0.72, tested=12)
    assert "Of 100" not in sentence
    assert "tested with only 12 images" in sentence
    assert "Of 100" in interpretation.sureness("familiar", "rose", 0.72, tested=736)


def test_calibration_is_not_promised_for_what_the_model_was_never_tested_with() -> None:
    assert "Of 100" not in interpretation.sureness("unfamiliar", "rose", 0.9)
    assert "not typical" in interpretation.sureness("unusual", "rose", 0.9)


def test_the_large_name_depends_on_novelty() -> None:
    assert interpretation.heading("familiar", "rose") == "rose"
    assert interpretation.heading("unusual", "rose") == "Possibly rose"
    assert interpretation.heading("unfamiliar", "rose") == "Nearest label: rose"


def test_a_file_name_is_text_wherever_it_stands() -> None:
    for text in (markup.verdict(HOSTILE, ANSWER, "familiar", _card()), markup.declined(HOSTILE, HOSTILE)):
        assert "<img" not in text
        assert "&lt;img" in text


def test_labels_and_facts_of_a_card_are_text_too() -> None:
    assert "<img" not in markup.labels([HOSTILE]) + markup.facts({HOSTILE: HOSTILE}) + markup.thanks(HOSTILE)


def test_bars_carry_the_answers_own_numbers_and_a_length_that_shows() -> None:
    bars = markup.bars(ANSWER, "familiar")
    assert 'data-label="rose" data-probability="0.9131"' in bars
    assert "width:91.31%" in bars
    assert "width:0.40%" in bars


def test_the_stages_of_a_round_trip_add_up_to_it() -> None:
    stages = markup.stages(0.050, {"decode": 0.002, "inference": 0.006, "total": 0.010})
    assert sum(seconds for _, seconds in stages) == pytest.approx(0.050)
    assert dict(stages)["network and queue"] == pytest.approx(0.040)


def test_a_service_that_reports_no_stages_still_has_a_round_trip() -> None:
    assert markup.stages(0.05, {}) == [("round trip", 0.05)]


def test_clocks_that_disagree_give_no_negative_stage() -> None:
    stages = markup.stages(0.001, {"decode": 0.002, "inference": 0.006, "total": 0.01})
    assert min(seconds for _, seconds in stages) == 0


def model(content: dict[str, Any] | None) -> Model:
    return Model("flowers", "1.0", "abc", "ready", Workers(2, 2), content)


def test_a_card_without_figures_is_shown_without_them() -> None:
    read = card.read(model(None))
    assert read.labels == ()
    assert read.crop == 1.0
    assert "<div>" not in markup.figures(read)


def test_the_figures_of_a_card_come_with_their_interval() -> None:
    metrics = {"top1": 0.9728, "top1_interval": [0.9584, 0.9823], "reliability": [[10, 0.61, 0.6], [90, 0.97, 0.96]]}
    read = card.read(model({"labels": ["a", "b"], "metrics": metrics, "input": {"crop": 0.95}}))
    assert "95.8 to 98.2 %" in markup.figures(read)
    assert read.reliability[0] == Bin(10, 0.61, 0.6)
    low, high = read.reliability[0].interval
    assert (low, high) == pytest.approx((0.3127, 0.8318), abs=1e-3)  # Wilson, six of ten
    assert markup.calibration(read.reliability).count("<i ") == 2


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (ResponseError(401, "unauthorized", "no key"), "UI_API_KEY"),
        (ResponseError(415, "unsupported_image", "this is not an image"), "This is not an image."),
        (ResponseError(413, "", ""), "status 413"),
    ],
    ids=["key", "image", "silent"],
)
def test_a_refusal_is_a_sentence(refused: ResponseError, words: str) -> None:
    assert words in predictions.reason(refused)


def test_without_an_environment_the_page_looks_where_make_serve_opens() -> None:
    assert Settings.read({}) == Settings()
    assert Settings().status_url.endswith(":8083")


def test_a_gateway_reports_the_status_too_unless_set_otherwise() -> None:
    behind = Settings.read(
        {"UI_SERVICE_URL": "http://gateway:8000/", "UI_STATUS_URL": "", "UI_FEEDBACK": "/data/f.jsonl"}
    )
    assert (behind.service_url, behind.status_url) == ("http://gateway:8000", "http://gateway:8000")
    assert behind.docs_url == "http://gateway:8000/docs"
    assert behind.feedback == Path("/data/f.jsonl")
    apart = Settings.read({"UI_SERVICE_URL": "http://a:1", "UI_STATUS_URL": "http://b:2", "UI_DOCS_URL": "https://c/d"})
    assert (apart.status_url, apart.docs_url) == ("http://b:2", "https://c/d")
