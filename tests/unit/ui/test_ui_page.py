"""The page's decisions, by Streamlit's own test harness, against a fake service."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.unit.ui.fake_service import FakeService, png, running

PAGE = Path(__file__).parents[3] / "ui" / "page.py"
EXPLAIN = "/explanations/flowers"
Show = Callable[..., AppTest]


@pytest.fixture
def service() -> Iterator[FakeService]:
    with running(FakeService()) as served:
        yield served


@pytest.fixture
def show(service: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Show:
    """Run the page and give it images."""

    def run(*images: bytes, feedback: Path = tmp_path / "feedback.jsonl", **environment: str) -> AppTest:
        monkeypatch.setenv("UI_SERVICE_URL", service.url)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("UI_FEEDBACK", str(feedback))
        page = AppTest.from_file(str(PAGE), default_timeout=60).run()
        if images:
            named = [(f"{index}.png", data, "image/png") for index, data in enumerate(images)]
            page.file_uploader[0].set_value(named).run()
        assert not page.exception
        return page

    return run


def html(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.get("html"))


def test_what_was_answered_is_not_asked_again(show: Show, service: FakeService) -> None:
    page = show(png(1), png(2))
    assert service.asked[EXPLAIN] == 2
    page.run()
    assert service.asked[EXPLAIN] == 2


def test_a_busy_service_can_be_asked_again_for_what_it_left(show: Show, service: FakeService) -> None:
    service.busy.add(png(2))
    page = show(png(1), png(2))
    assert "Too many requests at once." in html(page)
    assert html(page).count('<ol class="vs-bars') == 1
    service.busy.clear()
    before = service.asked[EXPLAIN]
    next(button for button in page.button if button.label == "Try again").click().run()
    assert html(page).count('<ol class="vs-bars') == 2
    assert service.asked[EXPLAIN] == before + 1


def test_more_images_than_a_person_looks_at_are_cut_with_a_sentence(show: Show, service: FakeService) -> None:
    page = show(*(png(seed) for seed in range(26)))
    assert service.asked[EXPLAIN] == 24
    assert "first 24 of 26" in page.info[0].value


def test_the_same_image_twice_is_asked_once_and_shown_twice(show: Show, service: FakeService) -> None:
    page = show(png(1), png(1))
    assert service.asked[EXPLAIN] == 1
    assert html(page).count('<ol class="vs-bars') == 2


def test_of_several_models_the_chosen_one_is_asked(show: Show, service: FakeService) -> None:
    service.models = ("birds", "flowers")
    page = show(png(1))
    assert service.asked == {"/explanations/birds": 1}
    page.selectbox(key="model").select_index(1).run()
    assert service.asked[EXPLAIN] == 1


def test_of_several_versions_the_one_that_answers_is_asked_without_its_number(show: Show, service: FakeService) -> None:
    service.versions = ("1.0", "1.1")
    page = show(png(1))
    assert service.asked == {EXPLAIN: 1}
    assert page.selectbox(key="model").options == ["flowers", "flowers 1.1"]
    page.selectbox(key="model").select_index(1).run()
    assert service.asked == {EXPLAIN: 1, f"{EXPLAIN}/1.1": 1}
    assert "Flowers 1.1 knows" in html(page)


def test_a_service_without_models_is_not_there_yet(show: Show, service: FakeService) -> None:
    service.models = ()
    assert "serves no model yet" in html(show())


def test_feedback_that_cannot_be_kept_is_said_so(show: Show, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    page = show(png(1), feedback=tmp_path / "file" / "feedback.jsonl")
    next(button for button in page.button if button.label == "Yes").click().run()
    assert "cannot be written" in page.error[0].value


def kept(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def test_nothing_asks_for_an_image_unless_the_operator_wants_them(show: Show) -> None:
    page = show(png(1))
    assert not [box for box in page.checkbox if "Keep" in box.label]
    assert "stored exactly" not in html(page)


def test_an_image_is_kept_only_if_the_person_ticks_the_box_and_the_page_says_for_how_long(
    show: Show, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    page = show(png(1), png(2), UI_FEEDBACK_IMAGES=str(folder), UI_FEEDBACK_IMAGES_DAYS="30")
    assert "at most 30 days" in html(page)
    first, second = [box for box in page.checkbox if box.label == "Keep this image with my answer"]
    assert (first.value, second.value) == (False, False)
    next(button for button in page.button if button.label == "Yes").click().run()
    assert kept(folder) == []
    [box] = [box for box in page.checkbox if box.label == "Keep this image with my answer"]
    box.check().run()
    next(button for button in page.button if button.label == "Yes").click().run()
    assert kept(folder) == [png(2)]
    lines = [json.loads(line) for line in (tmp_path / "feedback.jsonl").read_text().splitlines()]
    assert lines[0]["image"] is None
    assert (folder / lines[1]["image"]).read_bytes() == png(2)


def test_an_image_that_cannot_be_kept_is_said_so_and_nothing_is_saved(show: Show, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    page = show(png(1), UI_FEEDBACK_IMAGES=str(tmp_path / "file" / "kept"))
    next(box for box in page.checkbox if "Keep" in box.label).check().run()
    next(button for button in page.button if button.label == "Yes").click().run()
    assert "could not be kept" in page.error[0].value
    assert "untick the box" in page.error[0].value
    assert not (tmp_path / "feedback.jsonl").exists()


def test_the_page_deletes_what_was_kept_long_enough(show: Show, tmp_path: Path) -> None:
    old = tmp_path / "kept" / "2020-01-01"
    old.mkdir(parents=True)
    (old / "image.jpg").write_bytes(b"old")
    show(png(1), UI_FEEDBACK_IMAGES=str(tmp_path / "kept"))
    assert not old.exists()


def test_an_image_that_moves_up_keeps_its_feedback(show: Show, tmp_path: Path) -> None:
    page = show(png(1), png(2))
    [_, second] = [button for button in page.button if button.label == "Yes"]
    second.click().run()
    page.file_uploader[0].set_value([("2.png", png(2), "image/png")]).run()
    assert "Thank you" in html(page)
    assert [button.label for button in page.button if button.label == "Yes"] == []
    assert (tmp_path / "feedback.jsonl").read_text().count("\n") == 1


def test_the_same_image_can_be_judged_for_another_model(show: Show, service: FakeService, tmp_path: Path) -> None:
    service.models = ("birds", "flowers")
    page = show(png(1))
    next(button for button in page.button if button.label == "Yes").click().run()
    page.selectbox(key="model").select_index(1).run()
    assert "Thank you" not in html(page)
    next(button for button in page.button if button.label == "Yes").click().run()
    lines = [json.loads(line) for line in (tmp_path / "feedback.jsonl").read_text().splitlines()]
    assert [line["model"] for line in lines] == ["birds", "flowers"]


def test_a_file_of_any_type_gets_the_services_sentence(show: Show, service: FakeService) -> None:
    service.unsupported.add(b"heic")
    page = show(png(1), b"heic")
    assert "Send JPEG." in html(page)
    assert html(page).count('<ol class="vs-bars') == 1


def test_names_in_the_page_come_from_the_card(show: Show) -> None:
    page = show()
    assert page.text_input(key="labels-search").placeholder == "rose"


def test_a_thumb_is_thanked_for_once(show: Show, tmp_path: Path) -> None:
    page = show(png(1))
    next(button for button in page.button if button.label == "Yes").click().run()
    assert "Thank you" in html(page)
    assert [button.label for button in page.button if button.label == "Yes"] == []
    assert (tmp_path / "feedback.jsonl").read_text().count("\n") == 1


def test_the_sample_is_the_models_own_or_there_is_none(show: Show, service: FakeService, tmp_path: Path) -> None:
    def samples(page: AppTest) -> list[str]:
        return [toggle.help for toggle in page.toggle if toggle.label == "Show a sample"]

    assert samples(show()) == ["Sample image: vultilion, CC BY 2.0"]
    service.models = ("pets",)
    assert samples(show(UI_SAMPLES=str(tmp_path))) == [], "a flower says nothing about a model of pets"
    (tmp_path / "pets.jpg").write_bytes(png(7))
    page = show(UI_SAMPLES=str(tmp_path))
    assert samples(page) == ["Sample image: one of the test images of pets"]
    next(toggle for toggle in page.toggle if toggle.label == "Show a sample").set_value(True).run()
    assert service.asked == {"/explanations/pets": 1}
