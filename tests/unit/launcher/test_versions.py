"""Several versions of one model in one folder."""

import json
from collections.abc import Collection
from pathlib import Path

import pytest

from launcher import preflight, releases
from launcher.archive import Archive, asked_for
from launcher.default_versions import DefaultVersions
from launcher.releases import Release, ReleaseError
from launcher.settings import Settings, SetupError, resolve
from launcher.torchserve_api import ModelDescription, NoAnswer, ProbeAnswer
from launcher.workers import PROBE_S, START_TIMEOUT_S, WorkerMonitor
from tests.unit.launcher.test_doctor import PORT_KEYS, pack

RISING = ("0.9", "1.0rc1", "1.0", "1.0.1", "1.2", "1.10", "2", "10")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = tmp_path / "config.properties"
    config.write_text("".join(f"{key}=http://127.0.0.1:{number}\n" for number, key in enumerate(PORT_KEYS, 9000)))
    return resolve("mine", tmp_path, config, {}, {})


def keys(settings: Settings) -> list[str]:
    return [archive.key for archive in preflight.read_archives(settings)]


def test_versions_are_those_inside_the_archives_whatever_the_files_are_called(settings: Settings) -> None:
    # In the order of the files' names, TorchServe would let 1.9 answer.
    for file, version in (("mine-new.mar", "1.9"), ("mine.mar", "1.10")):
        pack(settings.model_store / file, name="mine", version=version)
    assert keys(settings) == ["mine/1.10", "mine/1.9"]
    assert preflight.check_archives(settings) == "mine 1.10 for cpu (it answers; beside it 1.9)"


@pytest.mark.parametrize(
    ("asked", "model"), [("mine-1.1", "mine"), ("mine", "mine"), ("others", "others"), (None, "mine")]
)
def test_a_model_is_named_by_its_name_or_by_that_of_its_file(tmp_path: Path, asked: str | None, model: str) -> None:
    pack(tmp_path / "mine-1.1.mar", name="mine", version="1.1")
    (tmp_path / "broken.mar").write_bytes(b"PK")
    assert asked_for(asked, tmp_path) == model


def test_the_stated_version_answers(settings: Settings) -> None:
    for version in ("1.0", "1.1", "2"):
        pack(settings.model_store / f"{version}.mar", name="mine", version=version)
    releases.save(settings.model_store / releases.FILE_NAME, {"mine": Release("1.0")})
    assert keys(settings)[0] == "mine/1.0"
    (settings.model_store / "1.0.mar").unlink()
    with pytest.raises(
        SetupError, match=r"says that mine 1\.0 answers, and no archive holds it: bring it back, or .*1\.1"
    ):
        preflight.check_archives(settings)


@pytest.mark.parametrize("version", ["1.0", "2"])
def test_two_archives_of_one_version_are_refused_by_both_names(settings: Settings, version: str) -> None:
    for file in ("a.mar", "b.mar"):
        pack(settings.model_store / file, name="mine", version=version)
    with pytest.raises(SetupError, match=rf"a\.mar and .*b\.mar both hold mine {version}: remove one"):
        preflight.check_archives(settings)


@pytest.mark.parametrize("broken", [b"PK", b"", b"text"])
def test_a_broken_archive_beside_good_ones_is_refused_by_its_name(settings: Settings, broken: bytes) -> None:
    pack(settings.model_store / "mine.mar")
    (settings.model_store / "other.mar").write_bytes(broken)
    with pytest.raises(SetupError, match=r"other\.mar is not a visionserve archive .*or move it away"):
        preflight.check_archives(settings)


def test_an_archive_whose_card_is_of_another_version_is_refused(settings: Settings) -> None:
    import zipfile

    with zipfile.ZipFile(settings.model_store / "mine.mar", "w") as archive:
        archive.writestr("card.json", json.dumps({"name": "mine", "version": "1.0"}))
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "mine", "modelVersion": "1.1"}}))
    with pytest.raises(SetupError, match=r"its card and its manifest, mine 1\.1, disagree"):
        preflight.check_archives(settings)


def test_an_earlier_version_may_stay_beside_the_bundle_that_another_archive_holds(settings: Settings) -> None:
    store = settings.model_store
    pack(store / "mine.mar", version="1.0")
    (store / "mine").mkdir()
    (store / "mine" / "card.json").write_text(json.dumps({"name": "mine", "version": "1.1", "device": "cpu"}))
    with pytest.raises(SetupError, match=r"mine\.mar holds version 1\.0 of another model than .*mine, which is 1\.1"):
        preflight.check_archives(settings)
    pack(store / "mine-1.1.mar", name="mine", version="1.1")
    assert keys(settings) == ["mine/1.1", "mine/1.0"]
    preflight.check_archives(settings)


def test_a_name_that_no_archive_holds_is_refused_with_those_that_are_there(settings: Settings) -> None:
    pack(settings.model_store / "mine.mar", name="birds")
    with pytest.raises(SetupError, match=r"holds mine: build it with `make archive MODEL=mine`, or name .*: birds\."):
        preflight.check_archives(settings)


def test_versions_rise_by_their_numbers() -> None:
    rising = list(RISING[::-1])
    rising.sort(key=releases.order)
    assert rising == list(RISING)


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        '{"mine": "1.0"}',
        '{"mine": {}}',
        '{"mine": {"default": 1.0}}',
        '{"mine": {"default": "1.0", "shares": 10}}',
        '{"mine": {"default": "1.0", "candidate": "1.1"}}',
        '{"mine": {"default": "1.0", "share": 5}}',
        '{"mine": {"default": "1.0", "candidate": "1.0", "share": 5}}',
        '{"mine": {"default": "1.0", "candidate": "1.1", "share": 101}}',
        '{"mine": {"default": "1.0", "candidate": "1.1", "share": 5, "shadow": 5}}',
        '{"mi/ne": {"default": "1.0"}}',
        '{"mine": {"default": "../1.0"}}',
    ],
)
def test_a_file_that_states_what_cannot_be_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / releases.FILE_NAME
    path.write_text(text)
    with pytest.raises(ReleaseError, match=r"releases\.json.*: correct it or delete it\.$"):
        releases.load(path)


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / releases.FILE_NAME
    assert releases.load(path) == {}
    stated = {"mine": Release("1.0", "0.9", "1.1", share=10), "birds": Release("2")}
    releases.save(path, stated)
    assert releases.load(path) == stated
    assert [file.name for file in tmp_path.iterdir()] == [releases.FILE_NAME]


class Server:
    """A TorchServe with one worker for each version; some versions never load."""

    def __init__(self) -> None:
        self.pids = {"mine/1.0": 1, "mine/1.1": 2}
        self.broken: set[str] = set()
        self.default, self.refuses = "mine/1.0", False

    def alive(self, pids: Collection[int]) -> set[int]:
        return set(pids) - {self.pids[key] for key in self.broken}

    def idle_s(self, _pids: Collection[int]) -> dict[int, float]:
        return {}

    def describe(self, model: str) -> ModelDescription | None:
        return ModelDescription(1, frozenset([self.pids[model]]))

    def refusal(self, _name: str, _version: str) -> str:
        return ""

    def predict(self, model: str, _timeout_s: float) -> ProbeAnswer:
        if model in self.broken:
            raise NoAnswer("nobody")
        return ProbeAnswer({"model": model}, self.pids[model])

    def set_default(self, model: str) -> None:
        if self.refuses:
            raise NoAnswer("status 500")
        self.default = model


class Scene:
    def __init__(self, folder: Path) -> None:
        self.now, self.server, self.path = 0.0, Server(), folder / releases.FILE_NAME
        archives = [Archive("mine", version, "", {}, folder / f"{version}.mar") for version in ("1.0", "1.1")]
        self.monitor = WorkerMonitor(self.server, archives, lambda: self.now)
        self.sentences: list[str] = []
        self.defaults = DefaultVersions(self.path, self.monitor, self.server, self.sentences.append)

    def load(self) -> None:
        self.monitor.tick()
        for model in self.monitor.models.values():
            self.monitor.probe_once(model)
        self.monitor.tick()

    def wait(self) -> None:
        """Let more time pass than a start may take."""
        for _ in range(int(START_TIMEOUT_S / PROBE_S) + 2):
            self.now += PROBE_S
            self.load()

    def release(self, release: Release) -> None:
        releases.save(self.path, {"mine": release})
        self.defaults.follow()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_version_that_is_not_the_default_never_ends_the_service(scene: Scene) -> None:
    scene.server.broken = {"mine/1.1"}
    scene.load()
    assert "mine 1.1" in scene.monitor.not_ready_reason()
    scene.wait()
    assert [model.archive.key for model in scene.monitor.left_out()] == ["mine/1.1"]
    assert "mine 1.1 has not answered" in scene.monitor.left_out()[0].failure
    assert (scene.monitor.failure(), scene.monitor.not_ready_reason(), scene.monitor.complete()) == ("", "", True)
    assert scene.monitor.status(scene.monitor.models["mine/1.1"]) == "failed"
    # A drain does not wait for it.
    since = scene.monitor.probe_all()
    scene.load()
    assert scene.monitor.all_answered(since)


def test_a_default_that_cannot_be_served_does(scene: Scene) -> None:
    scene.server.broken = {"mine/1.0"}
    scene.load()
    scene.wait()
    assert "mine 1.0 has not answered" in scene.monitor.failure()


def test_the_default_follows_the_file(scene: Scene) -> None:
    scene.load()
    scene.release(Release("1.1", "1.0"))
    assert scene.server.default == "mine/1.1"
    assert scene.monitor.find("mine") is scene.monitor.models["mine/1.1"]
    assert [model.archive.version for model in scene.monitor.versions("mine")] == ["1.1", "1.0"]
    scene.release(Release("1.0", "1.1"))
    assert scene.server.default == "mine/1.0"
    assert scene.sentences == [
        "mine 1.1 answers now, and mine 1.0 did before.",
        "mine 1.0 answers now, and mine 1.1 did before.",
    ]


def test_a_version_that_cannot_answer_does_not_become_the_default(scene: Scene) -> None:
    scene.server.broken = {"mine/1.1"}
    scene.load()
    for version, reason in (("1.1", "it is loading"), ("7", "start again")):
        scene.release(Release(version))
        assert reason in scene.sentences[-1]
        assert "mine 1.0 goes on answering" in scene.sentences[-1]
    scene.path.write_text("broken")
    scene.defaults.follow()
    assert "the same versions answer as before" in scene.sentences[-1]
    assert scene.server.default == "mine/1.0"


def test_a_switch_that_torchserve_did_not_make_is_tried_again(scene: Scene) -> None:
    scene.load()
    scene.server.refuses = True
    scene.release(Release("1.1"))
    assert (scene.server.default, scene.monitor.find("mine")) == ("mine/1.0", scene.monitor.models["mine/1.0"])
    scene.server.refuses = False
    scene.defaults.follow()
    assert scene.server.default == "mine/1.1"
