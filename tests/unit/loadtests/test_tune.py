import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from loadtests.__main__ import main
from loadtests.load import workers
from loadtests.load.http_client import Target
from loadtests.load.shapes import Stage
from loadtests.results.summary import Point, Slo
from loadtests.tune import command, report, search, trial
from loadtests.tune import setting as settings
from loadtests.tune.search import Comparison, TrialLog
from loadtests.tune.setting import Setting
from loadtests.tune.trial import Result
from tests.unit.loadtests.fake_service import Behaviour, running

SHIPPED = Setting(workers=2, threads=1, batch_size=4, delay_ms=1, runtime="openvino")


def archive(folder: Path, config: dict[str, object], card: str = "{}", *files: str) -> Path:
    path = folder / "flowers.mar"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr(settings.CONFIG, yaml.safe_dump(config))
        content.writestr("card.json", card)
        for name in files:
            content.writestr(name, b"")
    return path


def sustained(setting: Setting, _round: int = 0) -> Result:
    """A machine whose optimum is known: two workers, batch 8, no delay."""
    rate = 300 - 40 * abs(setting.workers - 2) - 5 * abs(setting.batch_size - 8) - 10 * (setting.delay_ms - 1)
    rate -= 150 if setting.runtime == "onnxruntime" else 0
    return Result(setting, float(rate), 20, 90, rate + 30.0, 8.0 + setting.batch_size / 10)


def test_the_shipped_setting_is_read_from_the_archive_with_a_worker_per_core_where_it_says_nothing(
    tmp_path: Path,
) -> None:
    config = {"batchSize": 4, "maxBatchDelay": 1, "handler": {"threads": 1, "runtime": "openvino"}}
    assert settings.shipped(archive(tmp_path, config), cores=2) == SHIPPED
    pinned = archive(tmp_path, {**config, "minWorkers": 5, "maxWorkers": 5})
    assert settings.shipped(pinned, cores=2).workers == 5


@pytest.mark.parametrize(("installed", "meant"), [(True, "openvino"), (False, "onnxruntime")])
def test_auto_is_the_engine_that_it_would_be_so_that_none_is_measured_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool, meant: str
) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda _name: installed or None)
    config = {"batchSize": 4, "maxBatchDelay": 1, "handler": {"threads": 1, "runtime": "auto"}}
    assert settings.shipped(archive(tmp_path, config), cores=2).runtime == meant


@pytest.mark.parametrize(("files", "runtime"), [(("weights.safetensors",), "torch"), ((), "onnxruntime")])
def test_an_archive_for_a_gpu_is_searched_with_its_engines_larger_batches_and_few_workers(
    tmp_path: Path, files: tuple[str, ...], runtime: str
) -> None:
    config = {"batchSize": 32, "maxBatchDelay": 1, "minWorkers": 4, "handler": {"threads": 1, "runtime": "auto"}}
    path = archive(tmp_path, config, '{"device": "cuda"}', *files)
    shipped = settings.shipped(path, cores=8)
    assert shipped == Setting(4, 1, 32, 1, runtime)
    axes = settings.axes(shipped, 8, settings.device(path))
    assert {setting.workers for setting in axes["workers"]} == {1, 2, 4, 6, 8}
    assert max(setting.batch_size for setting in axes["batch"]) == 128
    assert {setting.runtime for setting in axes["runtime"]} == {"torch", "onnxruntime", "tensorrt"}
    assert {setting.decoder for setting in axes["decoder"]} == {"cpu", "nvjpeg"}


def test_a_copy_of_the_archive_carries_the_setting_and_everything_else(tmp_path: Path) -> None:
    config = {"batchSize": 4, "responseTimeout": 60, "handler": {"threads": 1, "other": "kept"}}
    settings.write_archive(archive(tmp_path, config), tmp_path / "copy.mar", SHIPPED)
    with zipfile.ZipFile(tmp_path / "copy.mar") as content:
        assert content.namelist() == [settings.CONFIG, "card.json"]
        found = yaml.safe_load(content.read(settings.CONFIG))
    assert found == {
        "batchSize": 4,
        "maxBatchDelay": 1,
        "minWorkers": 2,
        "maxWorkers": 2,
        "responseTimeout": 60,
        "handler": {"threads": 1, "runtime": "openvino", "decoder": "cpu", "other": "kept"},
    }


def test_the_search_finds_the_best_of_a_known_machine(tmp_path: Path) -> None:
    best = search.search(SHIPPED, 2, sustained, TrialLog(tmp_path), lambda _: None)
    assert best.setting == Setting(2, 1, 8, 1, "openvino")


def test_a_gain_within_the_noise_does_not_displace_what_came_first(tmp_path: Path) -> None:
    def flat(setting: Setting, _round: int) -> Result:
        return Result(setting, 300.0 if setting == SHIPPED else 305.0)

    assert search.search(SHIPPED, 2, flat, TrialLog(tmp_path), lambda _: None).setting == SHIPPED


def test_an_interrupted_search_measures_nothing_twice(tmp_path: Path) -> None:
    measured: list[Setting] = []

    def interrupted(setting: Setting, _round: int) -> Result:
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append(setting)
        return sustained(setting)

    with pytest.raises(KeyboardInterrupt):
        search.search(SHIPPED, 2, interrupted, TrialLog(tmp_path), lambda _: None)
    with (tmp_path / search.FILE_NAME).open("a") as stream:
        stream.write('{"purpose": "search", "res')  # the line that a killed run was writing

    again: list[Setting] = []

    def counted(setting: Setting, _round: int) -> Result:
        again.append(setting)
        return sustained(setting)

    best = search.search(SHIPPED, 2, counted, TrialLog(tmp_path), lambda _: None)
    assert best.setting == Setting(2, 1, 8, 1, "openvino")
    assert not set(measured) & set(again)
    assert len(again) == len(set(again))
    assert all(json.loads(line) for line in (tmp_path / search.FILE_NAME).read_text().splitlines())


OTHER = Setting(2, 1, 8, 1, "openvino")


def test_the_last_comparison_is_paired_by_round_and_turns_the_order(tmp_path: Path) -> None:
    rates = {1: (100.0, 110.0), 2: (500.0, 520.0), 3: (102.0, 1.0), 4: (90.0, 99.0), 5: (80.0, 88.0)}
    order: list[tuple[int, Setting]] = []

    def noisy(setting: Setting, round_: int) -> Result:
        order.append((round_, setting))
        return Result(setting, rates[round_][setting == OTHER])

    comparison = search.compare(SHIPPED, OTHER, 5, noisy, TrialLog(tmp_path), lambda _: None)
    assert order == [(n, s) for n in rates for s in ((SHIPPED, OTHER) if n % 2 else (OTHER, SHIPPED))]
    assert comparison.ratio == pytest.approx(1.1)
    assert comparison.lower == pytest.approx(1 / 102)
    assert not comparison.better


def test_the_bound_is_an_order_statistic_with_a_risk_of_at_most_a_twentieth() -> None:
    assert [search.bound_rank(rounds) for rounds in (1, 4, 5, 7, 8, 11)] == [0, 0, 1, 1, 2, 3]
    assert Comparison((1.2, 1.1, 1.3, 1.4, 1.15)).lower == 1.1
    assert Comparison((9.0, 9.0, 9.0)).lower == 0.0


def test_a_setting_that_serves_nothing_loses_and_two_of_them_are_equal(tmp_path: Path) -> None:
    def never(setting: Setting, round_: int) -> Result:
        return Result(setting, 0.0 if setting == SHIPPED or round_ == 1 else 50.0)

    comparison = search.compare(SHIPPED, OTHER, 5, never, TrialLog(tmp_path), lambda _: None)
    assert comparison.ratios == (1.0, math.inf, math.inf, math.inf, math.inf)


def written(gain: float, runs: int, folder: Path, rounds: int = 8) -> float:
    """Simulate whole searches on a machine with slow hours and noisy trials; return the share that writes a profile.

    ``gain`` is what batches of 8 sustain above all other settings, which are equal.
    """
    rng = np.random.default_rng(17)
    profiles = 0
    for run in range(runs):
        mood = {round_: rng.lognormal(0, 0.12) for round_ in range(rounds + 1)}

        def trial(setting: Setting, round_: int, mood: dict[int, float] = mood) -> Result:
            noise = rng.lognormal(0, 0.08) * mood[round_]
            return Result(setting, 250 * (gain if setting.batch_size == 8 else 1.0) * noise)

        (folder / str(run)).mkdir()
        log = TrialLog(folder / str(run))
        best = search.search(SHIPPED, 2, trial, log, lambda _: None)
        if best.setting != SHIPPED:
            profiles += search.compare(SHIPPED, best.setting, rounds, trial, log, lambda _: None).better
    return profiles / runs


def test_equal_settings_write_a_profile_in_at_most_five_per_cent_of_runs(tmp_path: Path) -> None:
    assert written(1.0, 400, tmp_path) <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / 400)


def test_a_setting_that_sustains_a_quarter_more_is_recognised(tmp_path: Path) -> None:
    assert written(1.25, 60, tmp_path) > 0.8


def test_every_probe_has_its_own_arrivals_and_every_setting_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[tuple[int, ...]] = []

    def probed(plan: workers.Plan, rate: float, _conditions: object) -> Point:
        seeds.append(plan.seed)
        return Point(Stage("probe", rate, 1), rate, rate, 10, 15, 20 if rate < 80 else 300, 400, 100, 0, 0, 0, {})

    monkeypatch.setattr(trial, "_probe", probed)
    conditions = trial.Conditions(Path("flowers.mar"), "flowers", (), Slo(200, 0.0), seconds=1)
    for round_ in (0, 1, 1):
        trial.highest(trial.plan(Target.parse("http://127.0.0.1/x"), (), {}, (0, round_)), 100, conditions)
    search_, first, second = (seeds[i * len(seeds) // 3 : (i + 1) * len(seeds) // 3] for i in range(3))
    assert len(set(first)) == len(first)
    assert not set(search_) & set(first)
    assert first == second


def test_too_few_rounds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mar = archive(tmp_path, SHIPPED.config())
    assert main(["tune", f"--archive={mar}", "--rounds=4", f"--output={tmp_path / 'out'}"]) == 2
    assert "5 or more" in capsys.readouterr().err


def test_the_frontier_holds_what_nothing_beats_both_ways() -> None:
    slow, quick, beaten = (
        Result(SHIPPED, 300, alone_ms=12),
        Result(SHIPPED, 200, alone_ms=8),
        Result(SHIPPED, 190, alone_ms=9),
    )
    assert report.frontier([slow, beaten, quick]) == [quick, slow]


def test_the_report_shows_every_trial_and_those_that_failed(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    other = Setting(1, 2, 4, 1, "openvino")
    log.measured("search", SHIPPED, sustained, 0)
    log.measured("search", other, lambda setting, _: Result(setting, error="it ended with code 1:"), 0)
    log.measured("final 1", SHIPPED, sustained, 1)
    text = report.markdown(log, SHIPPED, "A machine.", 100)
    assert "| 2 x 1 (shipped) | 4 | 1 | openvino | 280 |" in text
    assert "it ended with code 1:" in text
    assert "280/s (280-280, 1 rounds)" in text
    report.draw(log.results("search"), SHIPPED, 100, tmp_path / "tune.png")
    assert (tmp_path / "tune.png").stat().st_size > 10_000


def test_the_profile_is_what_the_archive_is_built_with(tmp_path: Path) -> None:
    report.write_profile(SHIPPED, tmp_path / "tuned.yaml", "facts")
    assert yaml.safe_load((tmp_path / "tuned.yaml").read_text()) == SHIPPED.config()


def test_a_rate_is_held_only_while_the_target_is_met() -> None:
    with running(Behaviour(delay_s=0.01)) as url:
        target = Target.parse(url)
        images = tuple(command._images(None)[:2])
        plan = trial.plan(target, images, {}, seed=(0,))
        conditions = trial.Conditions(Path("flowers.mar"), "flowers", images, Slo(200, 0.0), seconds=1)
        point = trial.highest(plan, 50, conditions)
        assert point is not None
        assert 20 < point.stage.level < 54
        strict = trial.Conditions(Path("flowers.mar"), "flowers", images, Slo(5, 0.0), seconds=1)
        assert trial.highest(plan, 50, strict) is None


def test_a_miss_is_believed_when_it_happened_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 80.0
    probes: list[float] = []

    def probed(_plan: object, rate: float, _workload: object) -> Point:
        """A machine that holds every rate up to a limit, but misses whatever it is asked first."""
        slow = rate > limit or rate not in probes
        probes.append(rate)
        p99_ms = 300.0 if slow else 20.0
        return Point(Stage("probe", rate, 1), rate, rate, 10, 15, p99_ms, 400, 100, 0, 0, 0, {})

    monkeypatch.setattr(trial, "_probe", probed)
    conditions = trial.Conditions(Path("flowers.mar"), "flowers", (), Slo(200, 0.0), seconds=1)
    plan = trial.plan(Target.parse("http://127.0.0.1/x"), (), {}, seed=(0,))
    found = trial.highest(plan, 100, conditions)
    assert found is not None
    assert found.stage.level == pytest.approx(limit, rel=0.06)
    assert len(probes) == 2 * trial._HALVINGS


def test_other_options_than_those_of_the_interrupted_search_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mar = archive(tmp_path, SHIPPED.config())
    (tmp_path / "tune.json").write_text(
        json.dumps(
            {
                "facts": {"usable_cores": 2},
                "target": {"slo_p99_ms": 50.0, "seconds": 5, "images": "synthetic", "rounds": 8},
            }
        )
    )
    assert main(["tune", f"--archive={mar}", f"--resume={tmp_path}"]) == 2
    assert "use the same options" in capsys.readouterr().err


def test_a_missing_archive_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", f"--archive={tmp_path / 'none.mar'}", f"--output={tmp_path / 'out'}"]) == 2
    assert "`make archive` builds it" in capsys.readouterr().err
