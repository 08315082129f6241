"""Every method that golden data covers keeps what its released code keeps, or its `differs` says why not.

One method alone: python -m pytest tests/test_golden.py -k "equals and holov" -rx
"""

from dataclasses import replace

import pytest
import torch
from golden import Golden, cases_of, in_order
from golden_checks import recoverable_rows
from golden_rows import ROWS
from references.released.files import METHODS as FILES
from references.released.files import read

from hf_vtp.methods.table import METHODS
from hf_vtp.pruning.stage import Outcome


def differences(method):
    """One line for everything that is not equal; a method or an option that does not exist is one too."""
    found = []
    for golden in cases_of(method, ROWS[method].file):
        for check in ROWS[method].checks:
            try:
                found += [f"{golden.where}: {line}" for line in check.run(golden)]
            except (KeyError, TypeError, ValueError) as error:
                found.append(f"{golden.where}: {error}")
    return found


@pytest.mark.parametrize("method", ROWS)
def test_a_method_equals_golden_data_or_says_how_it_differs(method):
    found, beyond = differences(method), ROWS[method].beyond
    sentence = METHODS[method].differs
    if not found:
        must = f"say what the data does not show ({beyond})" if beyond else f"be empty, not {sentence!r}"
        assert bool(sentence) == bool(beyond), f"{method} equals its golden data: its `differs` must {must}"
        return
    what = f"{len(found)} differences, such as {found[0][:120]}"
    assert sentence, f"{method} is unlike its golden data, and no sentence `differs` says so: {what}"
    pytest.xfail(f"{sentence} ({what})")


@pytest.mark.parametrize("method", ROWS)
def test_every_golden_array_is_compared_or_explained(method):
    row, (_, arrays) = ROWS[method], read(ROWS[method].file)
    outputs = {key.split("/")[2] for key in arrays if key.count("/") == 2}
    compared = {name for check in row.checks for name in check.arrays}
    assert outputs == compared | row.shown.keys() and not compared & row.shown.keys()


def test_every_golden_file_has_a_row():
    assert {row.file for row in ROWS.values()} == set(FILES)


@pytest.mark.parametrize("method", ["visionzip", "prumerge", "prumerge_plus", "gtp", "recoverable"])
def test_what_the_golden_data_keeps_is_equal_to_it(method, monkeypatch):
    for golden in cases_of(method, ROWS[method].file):
        check = ROWS[method].checks[-1]
        rows = recoverable_rows if method == "recoverable" else in_order(check.arrays[-2])
        outcome = outcome_of(golden, rows, check.arrays[-1])
        monkeypatch.setattr(Golden, "prune", lambda *_, outcome=outcome: outcome)
        assert not list(check.run(golden))


def outcome_of(golden, rows, values):
    """The golden places in ascending order, an extra token at the least place that is free."""
    keep = torch.full((len(golden.out[values]), 65), -1)
    states = torch.zeros(len(keep), 65, 32)
    for b, made in enumerate(golden.out[values]):
        places = rows(golden.out, b)
        if len(made) > len(places) and made[len(places)].any():
            places = [*places, min(set(range(64)) - set(places))]
        order = sorted(range(len(places)), key=places.__getitem__)
        keep[b, : len(order)] = torch.tensor(sorted(places))
        states[b, : len(order)] = made[order]
    return Outcome(states, keep, None, None, None)


@pytest.mark.parametrize("method", ["fastervlm", "visionzip", "zero_tprune"])
def test_one_changed_number_is_found(method):
    golden = next(cases_of(method, ROWS[method].file))
    for check in ROWS[method].checks:
        assert not list(check.run(golden))
        name = check.arrays[-1]
        changed = golden.out[name].clone()
        changed[0, 0] += 1
        assert list(check.run(replace(golden, out={**golden.out, name: changed})))
