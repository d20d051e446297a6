"""The comparison with the card: false-alarm rate and power by exact enumeration or simulation, and what is said."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from monitoring.online import comparison, report
from monitoring.online.comparison import against_card, detectable_loss, paired_p_value, proportions_p_value
from monitoring.online.offline import Agreement
from monitoring.online.report import Results
from training.evaluation.intervals import design_effect, wilson

OFFLINE = 736


def power(accuracy: float, offline_accuracy: float, count: int, alpha: float = 0.05) -> float:
    """Return how often "below" is reported, over 100 cards and every number of right answers."""
    cards = np.random.default_rng(1).binomial(OFFLINE, offline_accuracy, 100)
    law = binom.pmf(np.arange(count + 1), count, accuracy)
    rates = {}
    for right in set(cards):
        p_values = comparison._proportions(int(right), OFFLINE, np.arange(count + 1), count)
        rates[right] = law[p_values <= alpha].sum()
    return float(np.mean([rates[right] for right in cards]))


@pytest.mark.parametrize(("accuracy", "count"), [(0.977, 50), (0.977, 100), (0.9, 50), (0.9, 200)])
def test_an_accuracy_that_is_the_cards_is_reported_below_as_often_as_stated(accuracy: float, count: int) -> None:
    assert 0.02 < power(accuracy, accuracy, count) < 0.06


def test_images_of_few_sources_are_reported_below_no_more_often_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    """As independent images they would be three times as often: those of a website are right or wrong together."""
    monkeypatch.setattr(comparison, "detectable_loss", lambda *_: None)  # takes most of the time
    rng, below = np.random.default_rng(3), []
    for right in rng.binomial(2000, 0.73, 300):
        of_group = np.repeat(np.arange(41), rng.geometric(0.2, 41))
        judged = rng.random(len(of_group)) < rng.beta(0.73 * 3, 0.27 * 3, 41)[of_group]
        effective = len(judged) / design_effect(judged.astype(float), of_group.astype(str).tolist())
        summary = {"top1": judged.mean(), "judged": len(judged), "effective_images": effective}
        card = {"top1": right / 2000, "photographs": 2000}
        found = [against_card(one, card, None) for one in (summary, summary | {"effective_images": len(judged)})]
        below.append([entry is not None and entry["below"] for entry in found])
    grouped, independent = np.mean(below, axis=0)
    assert grouped < 0.08
    assert independent > 0.1


def test_a_loss_of_four_points_is_reported_far_more_often_than_by_intervals_that_do_not_overlap() -> None:
    """A card of 736 images, a run of 100: two 95 % intervals without overlap need twice the loss."""
    assert power(0.937, 0.977, 100) > 0.55
    low = wilson(round(0.977 * OFFLINE), OFFLINE)[0]
    apart = [k for k in range(101) if wilson(k, 100)[1] < low]
    assert binom.cdf(max(apart), 100, 0.937) < 0.4


def test_the_stated_detectable_loss_is_detected_in_four_of_five_runs() -> None:
    loss = detectable_loss(719, OFFLINE, 200)
    assert loss is not None
    rng = np.random.default_rng(2)
    runs = [proportions_p_value(719, OFFLINE, int(k), 200) <= 0.05 for k in rng.binomial(200, 719 / 736 - loss, 1000)]
    assert np.mean(runs) == pytest.approx(0.8, abs=0.04)
    assert detectable_loss(60, 100, 1) is None


def test_pairs_are_mcnemars_test() -> None:
    assert paired_p_value(0, 0) == 1
    assert paired_p_value(5, 0) == pytest.approx(0.5**5 / 2)
    assert paired_p_value(0, 5) > 0.95
    rng = np.random.default_rng(3)
    discordant = rng.poisson(20, 1000)
    rate = np.mean(
        [
            paired_p_value(int(b), int(n - b)) <= 0.05
            for n, b in zip(discordant, rng.binomial(discordant, 0.5), strict=True)
        ]
    )
    assert rate < 0.06


def results(right: int, count: int, card: Mapping[str, object], agreement: Agreement | None = None) -> Results:
    low, high = wilson(right, count)
    summary = {"top1": right / count, "judged": count, "top1_interval": [low, high]}
    against = against_card(summary, card, agreement)
    return Results("run", "url", "flowers", "1.1", [], summary, {}, ("flowers", "1.1"), against, agreement)


CARD: Mapping[str, object] = {"top1": 719 / 736, "photographs": 736}


def test_what_is_said_follows_the_test() -> None:
    below = report.verdict(results(88, 100, CARD))
    assert "flowers 1.1: **88.0 % correct** of 100 images" in below
    assert "**below** the 97.7 % of the offline evaluation on 736 images (one-sided test, p = " in below
    same = report.verdict(results(97, 100, CARD))
    assert "no evidence that it is below the 97.7 %" in same
    assert "With 100 images a loss of 5." in same


def test_a_card_of_one_hundred_percent_is_no_special_case() -> None:
    """It was "not below the 100 %, which lies outside this interval"."""
    perfect = {"top1": 1.0, "photographs": 12}
    for right in (18, 17, 12):
        sentence = report.verdict(results(right, 18, perfect))
        assert "interval (" not in sentence
        assert "lies" not in sentence
    assert "no evidence that it is below the 100.0 %" in report.verdict(results(17, 18, perfect))
    of_training = replace(results(17, 18, perfect), seen=12)
    assert "12 of the posted images are among those that the model was trained" in report.verdict(of_training)
    assert "**below** the 100.0 %" in report.verdict(results(12, 18, perfect))


def test_the_same_images_are_compared_one_by_one() -> None:
    agreement = Agreement(100, 94, 94, 1.0, labelled=100, offline_right=98, only_offline_right=6, only_online_right=0)
    sentence = report.verdict(results(92, 100, CARD, agreement))
    assert "**below** the 98.0 % of the bundle on the same images (one-sided test, p = 0.0078)" in sentence
    agreement = Agreement(100, 100, 100, 0.0, labelled=100, offline_right=92)
    assert "no evidence that it is below the 92.0 % of the bundle" in report.verdict(results(92, 100, CARD, agreement))


def test_a_card_without_a_number_of_images_is_not_compared() -> None:
    assert "not compared" in report.verdict(results(92, 100, {"top1": 0.9}))
