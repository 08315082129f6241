"""What evaluations are made of: grids, cases, comparisons, the words and the picture, predictions."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor

from hf_vtp.tools.bench.cli import UsageError
from hf_vtp.tools.evaluation import pareto
from hf_vtp.tools.evaluation.cases import BASELINES, make_cases
from hf_vtp.tools.evaluation.compare import compare, difference
from hf_vtp.tools.evaluation.downsample import nearest_grid, square
from hf_vtp.tools.evaluation.equal_speed import at_equal_throughput
from hf_vtp.tools.evaluation.predictions import Predictions
from hf_vtp.tools.evaluation.processes import batches
from hf_vtp.tools.evaluation.rows import Quality, make_rows
from hf_vtp.tools.evaluation.verdict import verdict


def case_rows(methods=("vtp",), ratios=(0.5,), layers=(None,), seeds=3):
    return make_cases(methods, ratios, layers, seeds, "original")


@pytest.mark.parametrize(
    ("rows", "columns", "ratio", "grid"),
    [
        (8, 8, 0.5, (6, 6)),  # 36 is nearer to 32 than 25
        (8, 8, 0.25, (4, 4)),
        (8, 8, 0.01, (1, 1)),
        (6, 12, 0.5, (4, 9)),  # 36 tokens, though not quite of that shape: 4 × 8 would be 32
        (4, 8, 0.25, (2, 4)),
        (24, 24, 1.0, (24, 24)),
        (3, 1, 0.34, (1, 1)),
    ],
)
def test_nearest_grid(rows, columns, ratio, grid):
    found = nearest_grid(rows, columns, ratio)
    assert found == grid or abs(found[0] * found[1] - ratio * rows * columns) < 3


def test_nearest_grid_keeps_squares_square():
    assert all(r == c for r, c in (nearest_grid(24, 24, k / 100) for k in range(1, 101)))


def test_processors_make_smaller_images():
    for size in ({"shortest_edge": 24}, {"height": 24, "width": 24}):
        processor = CLIPImageProcessor(size=size, crop_size={"height": 24, "width": 24})
        kwargs = {} if "shortest_edge" in size else {"do_center_crop": False}
        pixels = processor(
            images=Image.new("RGB", (50, 40)), return_tensors="np", **kwargs, **square(processor, 12)
        )
        assert pixels["pixel_values"].shape == (1, 3, 12, 12)


def test_cases_hold_every_baseline_and_seed():
    cases = case_rows(("vtp", "qk_topk", "vtp+drop", "random"), (0.5, 0.25), (0, "output"))
    names = [case.name for case in cases]
    assert len(names) == len(set(names))
    assert names[:3] == ["unpruned", "downsample 0.5", "random 0.5 layer 0 seed 0"]
    for ratio in ("0.5", "0.25"):
        assert f"downsample {ratio}" in names
        for layer in ("0", "output"):
            for method in ("random", "random+absorb"):
                assert sum(n.startswith(f"{method} {ratio} layer {layer} seed") for n in names) == 3
            for method in ("uniform", "uniform+absorb", "vtp", "vtp+drop", "qk_topk"):
                assert f"{method} {ratio} layer {layer}" in names
    merger = {case.name: case.config.part("merger")[0] for case in cases if case.config}
    assert merger["vtp+drop 0.5 layer 0"] == "drop" and merger["uniform+absorb 0.25 layer output"] == "absorb"
    seeds = [c.config.part("scorer")[1]["seed"] for c in cases if c.row == ("random", 0.5, "0")]
    assert seeds == [0, 1, 2]


def test_difference():
    """Differences 1, 0, 0, 1: mean 0.5, standard error 0.5774 / 2, and Student's 3.1824 with 3 degrees."""
    found = difference(np.array([1.0, 1, 0, 1]), np.array([0.0, 1, 0, 0]))
    assert found["difference"] == 0.5 and found["num_items"] == 4 and found["outcome"] == "neither"
    assert found["high"] - 0.5 == pytest.approx(3.18245 * 0.57735 / 2, rel=1e-4)
    assert found["low"] == pytest.approx(1 - found["high"])
    same = difference(np.array([1.0, 0, 1]), np.array([1.0, 0, 1]))
    assert (same["low"], same["high"], same["outcome"]) == (0, 0, "neither")
    assert difference(np.ones(3), np.zeros(3))["outcome"] == "wins"
    many = difference(np.tile([0.0, 0, 1], 50), np.tile([1.0, 0, 1], 50))
    assert many["outcome"] == "loses" and many["high"] < 0


def found_of(cases, scores):
    """Quality of each case from its method's (and seed's) scores."""
    found = {}
    for case in cases:
        items = scores.get((case.method, case.seed), scores.get(case.method, [0.0, 0, 1, 1]))
        found[case.name] = Quality({"hit": float(np.mean(items))}, {"hit": items}, [4] * 4)
    return found


def test_rows_and_comparisons():
    cases = case_rows(("vtp", "qk_topk"))
    scores = {
        "unpruned": [1.0, 1, 1, 1],
        "vtp": [1.0, 1, 1, 0],
        "qk_topk": [0.0] * 4,
        "downsample": [0.0, 1, 1, 1],
    }
    scores |= {("random", 0): [1.0, 0, 0, 0], ("random", 1): [1.0, 1, 0, 0], ("random", 2): [1.0, 1, 1, 0]}
    found = found_of(cases, scores)
    work = {case.row: {"images_per_s": 1.0, "total_tokens": 8} for case in cases}
    rows = {row["method"]: row for row in make_rows(cases, found, work, ["hit"])}
    assert rows["random"]["hit"] == 0.5 and rows["random"]["num_seeds"] == 3
    assert rows["random"]["seed_std"] == {"hit": pytest.approx(0.25)}
    assert rows["vtp"]["hit_lossyness"] == 0.25 and rows["vtp"]["seed_std"] is None
    compared = {row["method"]: row for row in compare(cases, found)}
    assert set(compared) == {"vtp", "qk_topk"}
    assert compared["vtp"]["best_floor"] == "downsample" and compared["vtp"]["difference"] == 0
    assert compared["qk_topk"]["difference"] == -0.75
    text = verdict("title", list(rows.values()), list(compared.values()), ["hit"])
    assert "keep 0.5, layer default: vtp is best with 0.7500" in text or "downsample is best" in text
    assert "Fewer than 2,000 items" in text and "qk_topk against the best baseline" in text


def test_the_best_baseline_is_that_of_the_cell():
    cases = case_rows(("vtp",), (0.5, 0.25))
    found = found_of(cases, {})
    for case in cases:
        if case.row == ("uniform", 0.25, "default"):
            found[case.name] = Quality({"hit": 1.0}, {"hit": [1.0] * 4}, [4] * 4)
    best = {row["keep_ratio"]: row["best_floor"] for row in compare(cases, found)}
    assert best == {0.5: BASELINES[0], 0.25: "uniform"}


def test_equal_throughput_reads_between_the_rows_of_a_method():
    """On the line from (100, 1.0) over (200, 0.9) to (300, 0.5); the row at 250 lies below its frontier."""

    def row(method, ratio, speed, hit, layer="0"):
        values = {"images_per_s": speed, "speedup": speed / 100, "hit": hit, "latency_spread": 0.02}
        return {"method": method, "keep_ratio": ratio, "layer": layer, **values}

    rows = [row("unpruned", None, 100, 1.0, "-"), row("downsample", 0.5, 250, 0.8, "-")]
    rows += [row("vtp", 0.7, 200, 0.9), row("vtp", 0.5, 180, 0.85), row("vtp", 0.3, 300, 0.5)]
    rows += [row("uniform", 0.7, 50, 0.95), row("uniform", 0.5, 220, 0.8), row("uniform", 0.3, 310, 0.4)]
    rows += [row("tome", 0.5, 150, 0.9), row("vtp", 0.5, 250, 0.1, "2")]
    found = at_equal_throughput(rows, ["hit"], "images_per_s")
    at = {(r["layer"], r["method"], r["other"], r["other_keep_ratio"]): r["difference"] for r in found}
    assert at["0", "vtp", "uniform", 0.5] == pytest.approx(0.9 - 0.2 * 0.4 - 0.8)
    assert at["0", "vtp", "uniform", 0.7] == pytest.approx(1 - 0.95)  # slower than the unpruned model
    assert ("0", "vtp", "uniform", 0.3) not in at  # faster than any row of vtp
    assert at["0", "vtp", "tome", 0.5] == pytest.approx(0.95 - 0.9)
    assert at["0", "vtp", "downsample", 0.5] == pytest.approx(0.7 - 0.8)
    assert at["2", "vtp", "downsample", 0.5] == pytest.approx(0.1 - 0.8)  # another layer, another line
    assert not any(method in BASELINES for _, method, _, _ in at) and ("0", "tome", "vtp", 0.5) not in at
    text = verdict("title", rows, [], ["hit"], found)
    assert (
        "hit at equal throughput" in text and "quartiles of the timed rounds lie at most 2.0% apart" in text
    )
    assert "  tome: keep 0.5 (1.50x): +0.0500" in text


def test_rows_at_equal_flops_are_called_by_their_share(tmp_path):
    rows = [{"method": "unpruned", "flops": None, "keep_ratio": None, "layer": "-", "images_per_s": 100.0}]
    rows += [
        {"method": name, "flops": share, "keep_ratio": share / 2, "layer": "0", "images_per_s": speed}
        for name, share, speed in (("vtp", 0.6, 150.0), ("vtp", 0.3, 200.0), ("uniform", 0.6, 160.0))
    ]
    rows = [row | {"hit": 0.5, "kept_tokens": 3, "speedup": 1.5, "latency_spread": 0.0} for row in rows]
    found = at_equal_throughput(rows, ["hit"], "images_per_s")
    assert [(row["other"], row["other_flops"], row["other_keep_ratio"]) for row in found] == [
        ("uniform", 0.6, 0.3)
    ]
    text = verdict("title", rows, [], ["hit"], found)
    assert "FLOPs 0.6, layer 0: vtp is best" in text and "uniform: FLOPs 0.6 (1.50x): +0.0000" in text
    pareto.plot(tmp_path / "p.png", "title", rows, "hit", "images_per_s")
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_pareto_frontier():
    points = [(1, 0.9), (2, 0.8), (2, 0.7), (3, 0.85), (4, 0.1)]
    assert pareto.frontier(points, rising=True) == [(1, 0.9), (3, 0.85), (4, 0.1)]
    assert pareto.frontier(points, rising=False) == [(1, 0.9)]


def test_batches():
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]


def line(case, name, prediction="x"):
    return {"case": case, "id": name, "prediction": prediction}


def test_predictions_drop_a_line_that_was_cut_short(tmp_path):
    path, run = tmp_path / "p.jsonl", {"model": "m"}
    predictions = Predictions(path, run)
    assert predictions.merge() == {}
    predictions.add([line("a", "1"), line("a", "2")])
    predictions.close()
    with path.open("a") as file:
        file.write(json.dumps(line("a", "3"))[:15])
    other = Predictions(path, run, index=1)
    other.add([line("b", "1"), line("a", "1", "said later")])
    other.close()
    found = Predictions(path, run).merge([("b", "1")])
    assert list(found) == [("b", "1"), ("a", "1"), ("a", "2")] and found["a", "1"]["prediction"] == "x"
    assert Predictions(path, run).read() == found and [p.name for p in tmp_path.iterdir()] == ["p.jsonl"]


def test_a_predictions_file_is_of_one_run(tmp_path):
    path = tmp_path / "p.jsonl"
    Predictions(path, {"model": "m"}).merge()
    with pytest.raises(UsageError, match="belongs to a run with model 'm', not 'n'"):
        Predictions(path, {"model": "n"}).merge()
    path.write_text('{"question": "mine"}\n')
    with pytest.raises(UsageError, match="no file of predictions"):
        Predictions(path, {"model": "m"}).merge()
    assert path.read_text() == '{"question": "mine"}\n'
