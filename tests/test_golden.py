"""Every method that golden data covers keeps what its released code keeps, or its `differs` says why not.

One method alone: python -m pytest tests/test_golden.py -k "equals and holov" -rx
"""

from dataclasses import replace

import pytest
from golden import cases_of
from golden_rows import ROWS
from references.released.files import METHODS as FILES
from references.released.files import read

from hf_vtp.methods.table import METHODS

# how methods without a `differs` of their own differ; whoever mends one takes its line out
TODAY = {
    "divprune": "Tokens are chosen among the tower's features, not behind the projector.",
    "cdpruner": "The kernel is of the tower's features, not of tokens behind the projector.",
    "mmtok": "The image's tokens are compared behind the projector, at a text temperature of .01.",
    "vispruner": "The rest is in raster order in every round, not in that of attention.",
    "prumerge": "Attention is the mean over heads, of the layer that is pruned, not of one head and the next layer.",
    "prumerge_plus": "There is no such method yet.",
    "hiprune": "Anchors are looked for one layer later.",
    "holov": "γ is of the whole image, a token's likeness to itself counts, and features are the tower's.",
    "flowcut": "Likeness is the cosine of the values of all heads, and stages are one layer off.",
    "tome": "Tokens stay in raster order between rounds, and [CLS] is left out of the matching.",
    "gtp": "Rows of the graph sum to one, and scores are means over the heads.",
    "recoverable": "All kept tokens gather others, and attention is per head.",
    "dart": "One ranking by the closest pivot, norms are L2, and no pivot is of the text.",
    "todre": "The first token is the one least similar to all, and features are the tower's.",
}


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
    found, sentence = differences(method), differs(method)
    if not found:
        beyond = ROWS[method].beyond
        assert bool(sentence) == bool(beyond), (
            f"{method} equals its golden data, so its `differs` must "
            + (f"say what the data does not show ({beyond})" if beyond else f"be empty, not {sentence!r}")
        )
        return
    what = f"{len(found)} differences, such as {found[0][:120]}"
    assert sentence, f"{method} differs from its golden data and has no sentence `differs` that says so: {what}"
    pytest.xfail(f"{sentence} ({what})")


def differs(method):
    """The sentence of the method's entry."""
    return getattr(METHODS.get(method), "differs", "") or TODAY.get(method, "")


@pytest.mark.parametrize("method", ROWS)
def test_every_golden_array_is_compared_or_explained(method):
    row, (_, arrays) = ROWS[method], read(ROWS[method].file)
    outputs = {key.split("/")[2] for key in arrays if key.count("/") == 2}
    compared = {name for check in row.checks for name in check.arrays}
    explained = set(row.shown) | {name for name in outputs if name == "keep_order" and "values" in compared}
    assert outputs <= compared | explained, outputs - compared - explained
    assert compared <= outputs and not compared & set(row.shown)


def test_every_golden_file_has_a_row():
    assert {row.file for row in ROWS.values()} == set(FILES)


@pytest.mark.parametrize("method", ["fastervlm", "visionzip", "zero_tprune"])
def test_one_changed_number_is_found(method):
    golden = next(cases_of(method, ROWS[method].file))
    for check in ROWS[method].checks:
        assert not list(check.run(golden))
        name = check.arrays[-1]
        changed = golden.out[name].clone()
        changed[0, 0] += 1
        assert list(check.run(replace(golden, out={**golden.out, name: changed})))
