"""Families whose projector works row by row, against the masked full prompt of an unpruned twin."""

import pytest
import torch
from vlm_families import Pair

HOW = dict(method="qk_topk", layer=0, keep_ratio=0.5)
TEXT = torch.tensor([[7, 8, 9], [9, 8, 7]])
FAMILIES = ["llava", "vipllava", "llava_next", "paligemma", "deepseek_vl", "janus"]


@pytest.fixture(params=FAMILIES, scope="module")
def pair(request):
    return Pair(request.param, HOW)


def close(found, expected, mask):
    return torch.testing.assert_close(found[mask != 0], expected[mask != 0], rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["original", "compact"])
def test_logits_of_rows_with_several_images_and_none_equal_the_masked_prompts(pair, positions):
    pair = Pair(pair.model_type, {**HOW, "positions": positions})
    inputs = pair.with_text_row(pair.inputs)
    found = pair.model(**inputs).logits
    assert found.shape[:2] == inputs["input_ids"].shape
    close(found, pair.expected_logits(pair.prompt(inputs)), inputs["attention_mask"])


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
    together = pair.model(**pair.inputs).logits
    for r in range(len(together)):
        alone = pair.model(**pair.row(pair.inputs, r)).logits[0]
        close(
            together[r],
            torch.nn.functional.pad(alone, (0, 0, len(together[r]) - len(alone), 0)),
            pair.inputs["attention_mask"][r],
        )
