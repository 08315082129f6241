"""The leaderboard's page and picture, from results written here: every number worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from hf_vtp.tools.bench.cli import UsageError
from hf_vtp.tools.leaderboard.entries import Entry
from hf_vtp.tools.leaderboard.overall import of_model, standings
from hf_vtp.tools.leaderboard.page import render
from hf_vtp.tools.leaderboard.scores import pack, unpack
from hf_vtp.tools.leaderboard.store import Store
from hf_vtp.tools.leaderboard.table import read_table

ITEMS = {"count": 4, "digest": "d"}
COMMON = {
    "items": ITEMS,
    "weights": "w",
    "command": "python scripts/leaderboard.py",
    "seeds": 3,
    "machine": "a CPU",
}
VIT = Entry("vit", "classifier", "m", "d", {"flops": [0.6, 0.5]}, "A ViT", "drawn", ["agree"])
VLM = Entry("vlm", "vlm", "m", "d", {"after": [0.25]}, "A VLM", "drawn", ["exact_match"])
ABSENT = Entry(
    "absent", "clip", "/nowhere/m", "/nowhere/d", {"flops": [0.5]}, "Not there", "drawn", ["top_1"]
)


def cell(metric, scores, share=0.5, kept=16.0, **changes):
    made = {"values": {metric: float(np.mean(scores))}, "scores": {metric: pack(scores)}, "how": ""}
    return {**COMMON, **made, "flop_share": share, "kept": kept, "total": 64.0, **changes}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "results")
    store.add("vit", "unpruned", {"-": cell("agree", [1, 1, 1, 1], 1.0)})
    store.add(
        "vit",
        "vtp",
        {"flops 0.6": cell("agree", [1, 1, 1, 0], 0.6), "flops 0.5": cell("agree", [1, 1, 0, 0])},
    )
    store.add(
        "vit",
        "tome",
        {"flops 0.6": cell("agree", [1, 0, 1, 0], 0.6), "flops 0.5": cell("agree", [1] * 4, 0.55)},
    )
    store.add(
        "vit", "random", {"flops 0.6": cell("agree", [1, 0, 0, 0], 0.6), "flops 0.5": cell("agree", [0] * 4)}
    )
    store.add("vit", "cdpruner", {"flops 0.6": {**COMMON, "not_run": "it needs a prompt"}})
    store.add(
        "vit", "scope", {"flops 0.6": cell("agree", [1, 1, 1, 1], 0.6, items={"count": 4, "digest": "e"})}
    )
    store.add("vlm", "unpruned", {"-": cell("exact_match", [1, 1, 1, 0], 1.0)})
    store.add("vlm", "vtp", {"after 0.25": cell("exact_match", [1, 1, 0, 0])})
    store.add("vlm", "tome", {"after 0.25": cell("exact_match", [1, 1, 1, 0])})
    return store


def test_the_page_says_what_is_best_what_is_not_ranked_and_what_was_not_run(store, tmp_path):
    (tmp_path / "notes.md").write_text("## Notes\n\nWhat failed.\n")
    render([VIT, VLM, ABSENT], {}, store, tmp_path / "page.md", tmp_path / "notes.md")
    lines = (tmp_path / "page.md").read_text().splitlines()
    assert "| `vtp` | **0.750 ± 0.796** | **0.500 ± 0.919** | 0.60 / 0.50 |" in lines
    assert "| `tome` | 0.500 ± 0.919 | (1.000 ± 0.000) | 0.60 / 0.55 |" in lines  # it spent too much
    assert "| *random* | 0.250 ± 0.796 | 0.000 ± 0.000 | 0.60 / 0.50 |" in lines
    # ranks of vtp: 1 in both cells of the ViT, 2 in the VLM's; of tome: 2 (one cell), then 1
    standing = {line.split(" | ")[0]: line.split(" | ")[1] for line in lines if line.count("|") == 8}
    assert standing["| `vtp`"] == "1.5" and standing["| `tome`"] == "1.5" and standing["| *random*"] == "2.5"
    assert "| *random* | -50.0 (-141.9 to +41.9) | -50.0 (-141.9 to +41.9) |" in lines  # minus vtp
    assert "- A ViT: `cdpruner`: it needs a prompt." in lines
    assert any(line.startswith("- A ViT: `scope`: it was measured on other items") for line in lines)
    assert "- Not there: there is no /nowhere/m." in lines
    assert lines[-3:] == ["## Notes", "", "What failed."] and "Machine: a CPU." in lines
    assert any("84.57 | 82.60" in line for line in lines)
    with Image.open(tmp_path / "page.png") as image:
        assert min(image.size) > 300 and len(np.unique(np.asarray(image.convert("L")))) > 20


def test_means_over_models_are_those_by_hand_and_lie_in_their_intervals(store):
    order = standings([of_model(read_table(store, entry)) for entry in (VIT, VLM)])
    found = {one.row: one for one in order}
    assert found["vtp"].quality == pytest.approx(((0.75 + 0.5) / 2 + 0.5 / 0.75) / 2)
    assert found["tome"].quality == pytest.approx((0.5 + 1) / 2) and found["tome"].num_cells == 2
    assert (found["random"].num_models, found["random"].quality) == (1, pytest.approx(0.125))
    for one in order:
        assert one.rank_ends[0] <= one.rank <= one.rank_ends[1]
        assert one.quality_ends[0] < one.quality < one.quality_ends[1]


def test_nothing_measured_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="there are no results"):
        render([VIT], {}, Store(tmp_path), tmp_path / "page.md", tmp_path / "notes.md")


def test_packed_scores_come_back_and_are_small():
    random = np.random.default_rng(0)
    cosines, right = random.uniform(0.8, 1, 1000), random.integers(0, 2, 1000).astype(float)
    assert np.abs(unpack(pack(cosines.tolist())) - cosines).max() < 2e-6
    assert np.array_equal(unpack(pack(right.tolist())), right) and unpack(pack([0.5])).tolist() == [0.5]
    assert len(pack(right.tolist())["data"]) < 400 and len(pack(cosines.tolist())["data"]) < 2900


@pytest.mark.parametrize(
    "change", [{"count": 3}, {"count": 10**9}, {"data": "%"}, {"data": "AAAA"}, {"low": None}]
)
def test_scores_that_were_tampered_with_are_refused(change):
    with pytest.raises(UsageError, match="scores that cannot be read"):
        unpack({**pack([0.0, 1.0]), **change})
