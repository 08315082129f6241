"""The parts of tune on made-up numbers: its bounds, its search, its check."""

from types import SimpleNamespace

import numpy as np
import pytest

from hf_vtp import VTPConfig
from hf_vtp.tuning.bounds import fewest, mean_bounds, share_bounds
from hf_vtp.tuning.candidates import RATIOS, Candidate
from hf_vtp.tuning.check import front, walk
from hf_vtp.tuning.search import Search, Trial

BASE = VTPConfig()


def candidate(layer):
    return Candidate("vtp", layer, None, BASE)


class FakeMeasurements:
    """Later layers cost more; quality by (layer, ratio) is what a test says."""

    task = SimpleNamespace(bounds=lambda values, confidence, num: (values[0], values[0]))
    num = {"search": 1, "check": 1}

    def __init__(self, quality):
        self.quality, self.asked = quality, []
        self.bar = SimpleNamespace(set_description=lambda text: None)

    def flops(self, config):
        return 1000 if config is None else 100 * config.layer + 900 * config.keep_ratio

    def values(self, config, part):
        self.asked.append((config.layer, config.keep_ratio, part))
        return [self.quality(config.layer, config.keep_ratio, part)]


def test_a_share_needs_enough_trials():
    assert share_bounds([1.0] * 59, 0.95, 59)[0] == pytest.approx(0.05 ** (1 / 59))
    assert fewest(0.95, 0.95) == 59 and share_bounds([1.0] * 58, 0.95, 58)[0] < 0.95
    low, high = share_bounds([1.0, 0.0], 0.95, 100)
    assert low < 0.5 < high == pytest.approx(1 - low)


def test_bounds_narrow_with_the_number_of_images():
    values = np.linspace(0.9, 1, 20)
    wide, narrow = (np.diff(mean_bounds(values, 0.95, num)) for num in (20, 80))
    assert wide == pytest.approx(2 * narrow)
    assert mean_bounds(values, 0.5, 20) == pytest.approx((0.95, 0.95))
    assert mean_bounds([0.7], 0.95, 1) == (0.7, 0.7)


@pytest.mark.parametrize("bounds", [mean_bounds, share_bounds])
def test_bounds_hold_as_often_as_they_say(bounds):
    random = np.random.default_rng(0)
    num = 300
    if bounds is share_bounds:
        draws = (random.random((num, 60)) < 0.9).astype(float)
    else:
        draws = random.normal(0.9, 0.03, (num, 60))
    wrong = np.mean([bounds(draw, 0.9, 60)[0] > 0.9 for draw in draws])
    assert wrong <= 0.1 + 3 * (0.09 / num) ** 0.5


def test_the_search_finds_the_least_ratio_in_few_trials():
    measurements = FakeMeasurements(lambda layer, ratio, part: ratio)
    search = Search(measurements, target=0.42, confidence=0.95, budget=60, slack=0.0)
    search.run([candidate(0)])
    assert RATIOS[search.least[candidate(0)]] == 0.45
    assert len(measurements.asked) == len(set(measurements.asked)) <= 6


def test_a_dearer_place_is_abandoned_after_one_trial():
    measurements = FakeMeasurements(lambda layer, ratio, part: ratio)
    search = Search(measurements, 0.42, 0.95, 60, 0.0)
    search.run([candidate(0), candidate(2), candidate(5)])
    assert list(search.least) == [candidate(0)]
    assert [asked for asked in measurements.asked if asked[0] == 2] == [
        (2, 0.2, "search")
    ]  # 380 FLOPs, below 405
    assert not [asked for asked in measurements.asked if asked[0] == 5]  # 500 FLOPs without any token kept


def test_a_place_that_allows_more_takes_the_lead():
    measurements = FakeMeasurements(lambda layer, ratio, part: ratio + 0.2 * layer)
    search = Search(measurements, 0.5, 0.95, 60, 0.0)
    search.run([candidate(0), candidate(1), candidate(2)])
    assert [RATIOS[step] for step in search.least.values()] == [0.5, 0.3, 0.1]
    assert search.best == 290
    trials = list(search.finalists())
    assert [(t.candidate.layer, t.ratio) for t in trials] == [(2, r) for r in (0.1, 0.15, 0.2, 0.3, 0.5, 0.7)]


def test_a_spent_budget_ends_the_search():
    measurements = FakeMeasurements(lambda layer, ratio, part: ratio)
    search = Search(measurements, 0.42, 0.95, 2, 0.0)
    search.run([candidate(0), candidate(1)])
    assert len(measurements.asked) == 2 and search.budget == 0
    assert search.least[candidate(0)] == 0 or RATIOS[search.least[candidate(0)]] >= 0.45


def trial(ratio, mean, flops, layer=0):
    of = candidate(layer)
    return Trial(of, ratio, of.config(ratio), flops, mean, mean - 0.02, mean + 0.02)


def test_the_front_excludes_what_another_candidate_beats():
    safe, lucky, cheap = trial(0.9, 0.95, 80), trial(0.7, 0.99, 60), trial(0.5, 0.9, 40)
    beaten, better, dear = trial(0.8, 0.98, 90, layer=1), trial(0.3, 0.93, 50, layer=1), trial(1, 1, 100)
    shown = front([cheap, beaten, dear, safe, better, lucky], lambda t: t.flops, 100)
    assert shown == [safe, lucky, better, cheap]


def test_the_check_ends_at_the_first_that_fails():
    good = {0.9: 0.99, 0.7: 0.96, 0.5: 0.9, 0.3: 0.99}
    trials = [trial(0.9, 0.95, 90), trial(0.7, 0.95, 70), trial(0.5, 0.95, 50), trial(0.3, 0.95, 30)]
    measurements = FakeMeasurements(lambda layer, ratio, part: good[ratio])
    chosen = walk(trials, measurements, 0.95, 0.95)
    assert chosen is trials[1] and chosen.chosen and chosen.checked == (0.96, 0.96, 0.96)
    assert [asked[1:] for asked in measurements.asked] == [(0.9, "check"), (0.7, "check"), (0.5, "check")]
    assert trials[2].checked and trials[3].checked is None
    assert walk(trials[2:], FakeMeasurements(lambda *of: good[of[1]]), 0.95, 0.95) is None


def test_the_check_starts_where_it_is_easy():
    trials = [trial(0.9, 0.999, 90), trial(0.7, 0.998, 70), trial(0.5, 0.97, 50)]
    measurements = FakeMeasurements(lambda layer, ratio, part: 1.0)
    assert walk(trials, measurements, 0.95, 0.95) is trials[2]
    assert [asked[1] for asked in measurements.asked] == [0.7, 0.5]
