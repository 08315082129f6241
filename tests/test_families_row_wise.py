"""Families whose projector works row by row, against the masked full prompt of an unpruned twin."""

from inspect import signature

import pytest
import torch
from families import made
from transformers import AutoConfig, VideoLlavaForConditionalGeneration
from vlm import cached
from vlm_families import Pair, inner_of

from hf_vtp import apply_vtp, verify, vtp, vtp_stats

HOW = dict(method="qk_topk", layer=0, keep_ratio=0.5)
TEXT = torch.tensor([[7, 8, 9], [9, 8, 7]])
FAMILIES = ["llava", "vipllava", "llava_next", "llava_next_video", "paligemma", "deepseek_vl", "janus"]
TOWERS = {  # under LLaVA; with them the strategies that upstream takes
    "clip_vision_model": ("default", "full"),
    "siglip_vision_model": ("full",),
    "dinov2": ("default", "full"),
    "dinov2_with_registers": ("default", "full"),
    "vit": ("default", "full"),
    "deit": ("default", "full"),
    "ijepa": ("full",),
    "mlcd_vision_model": ("default",),
    "internvl_vision": ("default",),
}
OVER = [(tower, strategy, layer) for tower in TOWERS for strategy in TOWERS[tower] for layer in (-2, [-1, 2])]


@pytest.fixture(params=FAMILIES, scope="module")
def pair(request):
    return Pair(request.param, HOW)


def close(found, expected, mask):
    torch.testing.assert_close(found[mask != 0], expected[mask != 0], rtol=0, atol=1e-4)


def same_logits(pair, inputs):
    found = pair.model(**inputs).logits
    assert found.shape[:2] == inputs["input_ids"].shape
    close(found, pair.expected_logits(pair.prompt(inputs)), inputs["attention_mask"])


@torch.no_grad()
@pytest.mark.parametrize("positions", ["original", "compact"])
def test_logits_of_rows_with_several_images_and_none_equal_the_masked_prompts(pair, positions):
    pair = Pair(pair.model_type, {**HOW, "positions": positions})
    same_logits(pair, pair.with_text_row(pair.inputs))


def test_greedy_words_of_rows_with_several_images_and_none_equal_the_masked_prompts(pair):
    inputs = pair.with_text_row(pair.inputs)
    found = pair.found_words(inputs, max_new_tokens=6)
    assert torch.equal(found, pair.expected_words(pair.prompt(inputs, generating=True), max_new_tokens=6))


def test_beams_of_rows_with_several_images_equal_the_masked_prompts(pair):
    beams = dict(num_beams=3, num_return_sequences=2, max_new_tokens=5)
    found = pair.found_words(pair.inputs, **beams)
    assert torch.equal(found, pair.expected_words(pair.prompt(pair.inputs, generating=True), **beams))


def test_a_static_cache_gives_the_masked_prompts_words(pair):
    static = dict(cache_implementation="static", max_new_tokens=4, disable_compile=True)
    found = pair.found_words(pair.inputs, **static)
    assert torch.equal(found, pair.expected_words(pair.prompt(pair.inputs, generating=True), **static))


def test_a_second_turn_goes_on_as_after_the_masked_prompt(pair):
    found, expected = pair.second_turn(pair.inputs, TEXT, max_new_tokens=5)
    assert torch.equal(found, expected)


@torch.no_grad()
def test_a_row_gives_the_same_alone_and_in_a_batch(pair):
    together, mask = pair.model(**pair.inputs).logits, pair.inputs["attention_mask"]
    for r in range(len(together)):
        alone = pair.model(**pair.row(pair.inputs, r)).logits[0]
        close(together[r][mask[r] != 0], alone, torch.ones(len(alone)))


@torch.no_grad()
@pytest.mark.parametrize("tower, strategy, layer", OVER)
def test_llava_over_any_plain_tower_equals_the_masked_prompt(tower, strategy, layer):
    changes = dict(vision_feature_layer=layer, vision_feature_select_strategy=strategy)
    pair = Pair("llava", HOW, vision_config=AutoConfig.for_model(tower), **changes)
    same_logits(pair, pair.inputs)


def test_skipping_the_first_patch_of_a_tower_without_a_cls_token_is_refused():
    model, inputs = made(
        "llava", "LlavaForConditionalGeneration", vision_config=AutoConfig.for_model("siglip_vision_model")
    )
    with vtp(model, **HOW), pytest.raises(ValueError, match="use 'full'"):
        model(**inputs)


@torch.no_grad()
def test_llava_next_over_a_tower_without_a_cls_token_equals_the_masked_prompt():
    pair = Pair("llava_next", HOW, vision_config=AutoConfig.for_model("siglip_vision_model"))
    same_logits(pair, pair.inputs)


@torch.no_grad()
def test_every_newline_between_tiles_stays_and_statistics_are_of_tiles():
    pair = Pair("llava_next", dict(HOW, keep_ratio=0.1))
    (rows, kept) = pair.features(pair.inputs)["image"]
    newline = (rows == inner_of(pair.model).image_newline).all(dim=-1)
    assert newline.sum() == 14 and kept[newline].all()
    stats = vtp_stats(pair.model)
    assert stats.num_kept == [2] * 11 and stats.grids == [(1, 4, 4)] * 11  # 5, 4 and 2 tiles


@torch.no_grad()
def test_videos_of_llava_next_video_leave_in_the_cells_that_are_pooled():
    pair = Pair("llava_next_video", dict(HOW, keep_ratio=0.25))
    images, videos = (pair.features(pair.inputs)[medium][1] for medium in ("image", "video"))
    assert videos.sum() == 2 * 3 and len(videos) == 2 * 3 * 4  # one of four cells a frame
    base = images[:16].view(2, 2, 2, 2)  # rows of cells, rows in a cell, columns of cells, columns in a cell
    assert base.sum() == 4 and torch.equal(base.all(dim=3).all(dim=1), base.any(dim=3).any(dim=1))


@torch.no_grad()
def test_an_image_in_a_second_forward_of_paligemma_is_refused():
    pair = Pair("paligemma", HOW)
    first = pair.model(**pair.inputs, use_cache=True)
    inputs = {**pair.inputs, "attention_mask": pair.inputs["attention_mask"].repeat(1, 2)}
    with pytest.raises(NotImplementedError, match="without a cache"):
        pair.model(**inputs, **cached(first))


@torch.no_grad()
def test_paligemma_without_token_types_is_refused():
    pair = Pair("paligemma", HOW)
    inputs = {k: x for k, x in pair.inputs.items() if k != "token_type_ids"}
    for call in (pair.model, pair.model.generate):
        with pytest.raises(ValueError, match="token_type_ids are missing"):
            call(**inputs)


@torch.no_grad()
@pytest.mark.parametrize("types", [0, 1])
def test_token_types_leave_with_their_columns_and_say_which_see_both_ways(types):
    pair = Pair("paligemma", HOW)
    inputs = {**pair.inputs, "token_type_ids": torch.full_like(pair.inputs["input_ids"], types)}
    same_logits(pair, inputs)
    other = pair.model(**pair.inputs).logits
    assert (pair.model(**inputs).logits - other)[:, -1].abs().max() > 0.1


@torch.no_grad()
def test_a_placeholder_beyond_the_vocabulary_is_read():
    pair = Pair("paligemma", HOW)
    expected, ids = pair.model(**pair.inputs).logits, pair.inputs["input_ids"]
    model, _ = made("paligemma", "PaliGemmaForConditionalGeneration")
    model.config.image_token_id = 1000
    apply_vtp(model, **HOW)
    inputs = {**pair.inputs, "input_ids": ids.masked_fill(ids == 30, 1000)}
    assert torch.equal(model(**inputs).logits, expected)
    words = model.generate(**inputs, **pair.words, max_new_tokens=3)
    assert torch.equal(words[:, ids.shape[1] :], pair.found_words(pair.inputs, max_new_tokens=3))


@torch.no_grad()
def test_paligemma_2_whose_layers_have_windows_equals_the_masked_prompt():
    pair = Pair("paligemma", HOW, text_config=AutoConfig.for_model("gemma2"))
    same_logits(pair, pair.with_text_row(pair.inputs))
    found = pair.found_words(pair.inputs, max_new_tokens=5)
    assert torch.equal(
        found, pair.expected_words(pair.prompt(pair.inputs, generating=True), max_new_tokens=5)
    )


@pytest.mark.parametrize("name", ["pixel_values", "pixel_values_images"])
def test_video_llava_is_pruned_after_its_features_by_either_name_of_its_images(name):
    if "pixel_values" not in signature(VideoLlavaForConditionalGeneration.forward).parameters:
        pytest.skip("the Video-LLaVA of this Transformers takes no pixel_values")
    model, inputs = made("video_llava", "VideoLlavaForConditionalGeneration")
    inputs[name] = inputs.pop("pixel_values_images")
    report = verify(model, inputs, method="divprune", keep_ratio=0.5, max_new_tokens=3)
    verdicts = {check.name: check.holds for check in report.checks}
    assert all(verdicts[check] for check in ("undo", "ratio 1.0", "prompt", "batch", "generate")), (
        report.table()
    )


@pytest.mark.parametrize("model_type", ["llava_next", "llava_next_video", "paligemma"])
def test_gradients_reach_the_kept_tokens_and_are_those_of_the_masked_prompt(model_type):
    pair = Pair(model_type, HOW)
    ids = pair.inputs["input_ids"]
    labels = ids.masked_fill(pair.inputs["attention_mask"] == 0, -100)
    labels = labels.masked_fill(torch.isin(labels, torch.tensor(list(pair.media.values()))), -100)
    loss = pair.model(**pair.inputs, labels=labels).loss
    loss.backward()
    logits = pair.expected_logits(pair.prompt(pair.inputs))[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-4)
    grads = {name: x.grad for name, x in pair.model.named_parameters() if x.grad is not None}
    assert all(grad.isfinite().all() for grad in grads.values())
    tower = [
        grad.abs().sum() for name, grad in grads.items() if "vision_tower" in name and "layers.0" in name
    ]
    assert tower and max(tower) > 0


@torch.no_grad()
def test_text_decides_what_stays_of_a_picture_in_tiles():
    model, inputs = made("llava_next", "LlavaNextForConditionalGeneration")
    apply_vtp(model, method="cdpruner", layer="output", keep_ratio=0.3)
    model(**inputs)
    first = [keep.tolist() for keep in vtp_stats(model).keep_indices]
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][:, -2:] = torch.tensor([20, 25])
    model(**other)
    assert first != [keep.tolist() for keep in vtp_stats(model).keep_indices]
