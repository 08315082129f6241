"""Families whose projector makes one row of a cell of patches, against the unpruned tower and prompt."""

import pytest
import torch
from cells import Pruned
from families import LANGUAGE, classes, made
from transformers import PixtralVisionConfig

from hf_vtp import apply_vtp, vtp, vtp_stats
from hf_vtp.families.table import FAMILIES

# save the one that pools videos only, see test_families_row_wise.py
FAMILIES_OF_CELLS = [name for name in LANGUAGE if FAMILIES[name].cell != 1 and name != "llava_next_video"]
METHODS = {
    "drop": dict(method="qk_topk", layer=0, keep_ratio=0.5),
    "adaptive": dict(method="dynamic", layer=0, keep_ratio=0.5),
    "two stages": dict(method="random", layer=[0, 1], keep_ratio=[0.7, 0.4]),
    "last layer": dict(method="random", layer="output", keep_ratio=0.3),
}


def grids(model_type, inputs):
    """Rows and columns of patches of each image of the recipe."""
    if "spatial_shapes" in inputs:
        return [tuple(shape) for shape in inputs["spatial_shapes"].tolist()]
    if "image_sizes" in inputs:
        return [(h // 4, w // 4) for h, w in inputs["image_sizes"].tolist()]
    pixels = inputs["pixel_values"].flatten(0, -4)
    return [(6, 6)] * int((pixels != 0).flatten(1).any(dim=1).sum())


def same(found, expected):
    """Equal to float32's rounding of the largest."""
    torch.testing.assert_close(found, expected, atol=2e-5 * max(1, float(expected.abs().max())), rtol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model_type", FAMILIES_OF_CELLS)
def test_kept_cells_and_the_prompt_are_those_of_the_masked_model(model_type, method):
    model, inputs = made(model_type, classes(model_type)[0])
    pruned = Pruned(model, inputs, grids(model_type, inputs), **METHODS[method])
    assert 0 < int(pruned.kept.sum()) < len(pruned.kept)
    rows = pruned.full_rows()
    same(pruned.rows[pruned.kept], rows[pruned.kept])
    columns = torch.arange(inputs["input_ids"].shape[1]).expand_as(inputs["input_ids"])
    alive = pruned.alive()
    if pruned.steps_over_columns:
        for r, own in enumerate(alive):
            places = columns[r, own][None]
            row = pruned.alone(rows, r, lambda **given: model(**given, position_ids=places))  # noqa: B023
            same(pruned.output.logits[r, own], row.logits[0])
        return
    whole = pruned.masked(rows, lambda **given: model(**given, position_ids=columns))
    same(pruned.output.logits[alive], whole.logits[alive])


@pytest.mark.parametrize("method", ["drop", "adaptive", "two stages"])
def test_images_joined_in_one_row_can_be_projected_patch_by_patch(method):
    model, inputs = made("llava", classes("llava")[0], vision_config=PixtralVisionConfig())
    pruned = Pruned(model, inputs, grids("llava", inputs), **METHODS[method])
    rows = pruned.full_rows()
    assert 0 < int(pruned.kept.sum()) < len(pruned.kept)
    same(pruned.rows[pruned.kept], rows[pruned.kept])


def test_a_method_that_compares_with_text_is_refused_in_a_tower_of_cells():
    model, inputs = made("gemma3", classes("gemma3")[0])
    with pytest.raises(ValueError, match="leave out layer"):
        apply_vtp(model, method="mmtok", layer=0)
    apply_vtp(model, method="mmtok", keep_ratio=0.5)
    model(**inputs)
    assert vtp_stats(model).num_kept == [4] * 3


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("model_type", FAMILIES_OF_CELLS)
def test_generate_writes_what_the_masked_model_writes(model_type, beams):
    model, inputs = made(model_type, classes(model_type)[0])
    options = METHODS["drop"]
    pruned = Pruned(model, inputs, grids(model_type, inputs), **options)
    rows = pruned.full_rows()
    told = dict(max_new_tokens=4, num_beams=beams, do_sample=False, output_logits=True)
    told |= dict(return_dict_in_generate=True, suppress_tokens=[model.config.image_token_id])
    with vtp(model, **options):
        short = model.generate(**inputs, **told)
    places = (inputs["attention_mask"].cumsum(dim=-1) - 1).clamp(min=0)
    if pruned.steps_over_columns:
        for r, own in enumerate(pruned.alive()):
            row = dict(position_ids=places[r, own][None], **told)
            whole = pruned.alone(rows, r, lambda **given: model.generate(**given, **row))  # noqa: B023
            assert torch.equal(short.sequences[r, len(own) :], whole.sequences[0, int(own.sum()) :])
        return
    whole = pruned.masked(rows, lambda **given: model.generate(**given, position_ids=places, **told))
    assert torch.equal(short.sequences, whole.sequences)
    if beams == 1:
        same(torch.stack(short.logits), torch.stack(whole.logits))
