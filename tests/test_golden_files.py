"""Golden files are what their references make, and the references make what the released code returned."""

from pathlib import Path

import numpy as np
import pytest
from references.released.files import METHODS, OWN, module_of, read, read_inputs, read_outputs, trimmed
from references.released.make import SEEDS, outputs
from references.released.recipe import images, inputs

RETURNED = Path(__file__).parents[2] / "shared" / "golden"  # what the released code itself returned
# arrays that no reference makes: the turns of a Python set, which differ from run to run
KINDS = ("", "_4_image_4_text")
ARBITRARY = {f"{name}{kind}" for name in ("keep", "keep_order", "turns") for kind in KINDS}


def same(made, golden, what):
    """Places equal; values within 1e-4."""
    assert made.dtype == golden.dtype and made.shape == golden.shape, what
    if golden.dtype == np.int16:
        assert np.array_equal(made, golden), what
    else:
        np.testing.assert_allclose(made, golden, atol=1e-4, rtol=1e-4, err_msg=what)


@pytest.mark.parametrize("method", METHODS)
def test_golden_files_are_what_their_references_make(method):
    meta, arrays = read(method)
    assert meta == {"method": method, "seeds": list(SEEDS), "cases": module_of(method).CASES}
    for seed in meta["seeds"]:
        x = read_inputs(arrays, seed)
        drawn = inputs(module_of(method), seed)
        assert x.keys() == drawn.keys() and all(np.array_equal(x[name], drawn[name]) for name in x)
        for c, case in enumerate(meta["cases"]):
            golden, made = read_outputs(arrays, seed, c), outputs(method, x, case)
            assert golden.keys() == made.keys()
            for name, a in golden.items():
                same(made[name], a, f"{name} of seed {seed}, case {c}")


@pytest.mark.parametrize("method", METHODS)
def test_references_make_what_the_released_code_returned(method):
    if not (RETURNED / f"{method}.npz").exists():
        pytest.skip("there is no ../shared/golden beside the repository")
    meta, arrays = read(method, RETURNED)
    for seed in meta["seeds"]:
        x = read_inputs(arrays, seed)
        for c, case in enumerate(meta["cases"]):
            golden, made = read_outputs(arrays, seed, c), outputs(method, x, case)
            for name in golden.keys() - (ARBITRARY if method == "dart" else set()):
                same(made[name], golden[name], f"{name} of seed {seed}, case {c}")


def test_dart_keeps_what_the_released_code_kept_in_its_turns():
    if not (RETURNED / "dart.npz").exists():
        pytest.skip("there is no ../shared/golden beside the repository")
    meta, arrays = read("dart", RETURNED)
    for seed in meta["seeds"]:
        for c, case in enumerate(meta["cases"]):
            golden = read_outputs(arrays, seed, c)
            for b, x in enumerate(images(read_inputs(arrays, seed))):
                for suffix, image, text in (("", 8, 0), ("_4_image_4_text", 4, 4)):
                    turns = golden[f"turns{suffix}"][b].tolist()
                    assert sorted(turns) == sorted(module_of("dart").pivots_of(x, image, text))
                    keep = module_of("dart").chosen(x, turns, case["per_pivot"])
                    assert sorted(keep) == trimmed(golden[f"keep{suffix}"], b).tolist()


def test_golden_files_are_small():
    assert {path.stem for path in OWN.glob("*.npz")} == set(METHODS)
    assert sum(path.stat().st_size for path in OWN.glob("*.npz")) < 1e6
