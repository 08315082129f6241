"""Language-model families in every calling form: right, or refused in one sentence before any compute."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import (
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)
from vlm import FAMILIES, Llava, cached, expected_rows, masked, new_tokens

from hf_vtp import apply_vtp, remove_vtp, vtp, vtp_stats

CLOSE = dict(atol=1e-5, rtol=1e-5)
pytestmark = pytest.mark.models


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def never_computed(model):
    """Fails the test if the tower runs."""

    def hook(module, args):
        raise AssertionError("the tower ran")

    tower = model.model.vision_tower if hasattr(model.model, "vision_tower") else model.model.visual
    return tower.register_forward_pre_hook(hook)


def refused(call, model, match):
    """One sentence, before any compute."""
    handle = never_computed(model)
    with pytest.raises((NotImplementedError, ValueError), match=match) as caught:
        call()
    handle.remove()
    assert "\n" not in str(caught.value)


# packed prompts


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_packed_prompts_are_refused(family, rows):
    model, one = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1,))
    n = one["input_ids"].shape[1]
    packed = {
        name: torch.cat([x, x], dim=1 if name in ("input_ids", "mm_token_type_ids") else 0)
        for name, x in one.items()
    }
    del packed["attention_mask"]
    positions = torch.arange(n).repeat(2)[None]
    if rows > 2:
        positions = positions.expand(rows, -1, -1)
        if family is Llava:
            pytest.skip("one row of positions")
    for use_cache in (False, True):
        call = dict(**packed, position_ids=positions, use_cache=use_cache)
        refused(lambda: model(**call), model, "packed into one row")  # noqa: B023
    lengths = torch.tensor([0, n, 2 * n], dtype=torch.int32)
    call = dict(**packed, cu_seq_lens_q=lengths, cu_seq_lens_k=lengths, max_length_q=n, max_length_k=n)
    refused(lambda: model(**call), model, "packed into one row \\(cu_seq_lens_q\\)")
    # positions that only say what the model itself would are none of that
    plain = family.inputs((1,))
    with vtp(model, keep_ratio=0.3):
        expected = model(**plain).logits
        if family is Llava:
            given = torch.arange(n)[None]
            plain.pop("attention_mask")
            torch.testing.assert_close(model(**plain, position_ids=given).logits, expected, **CLOSE)


def test_positions_of_a_padded_batch_are_none_of_that():
    model, inputs = apply_vtp(Llava.model(), keep_ratio=0.3), Llava.inputs((1, 2))
    mask = inputs["attention_mask"]
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    full = Llava.reference(model, inputs | {"x": model(**inputs)})
    full["position_ids"] = positions
    logits = Llava.model()(**full).logits
    output = model(**inputs, position_ids=positions).logits
    torch.testing.assert_close(output, expected_rows(logits, full["attention_mask"]), **CLOSE)


# generate's arguments


class Ban(LogitsProcessor):
    """Another answer than greedy, from a caller's processor."""

    def __call__(self, input_ids, scores):
        self.length = input_ids.shape[1]
        scores = scores.clone()
        scores[:, ::2] = -1e9
        return scores


class StopAt(StoppingCriteria):
    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


def test_positional_arguments_of_generate_are_translated(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 2))
    n = inputs["input_ids"].shape[1]
    rest = {k: v for k, v in inputs.items() if k != "input_ids"}
    config = copy.deepcopy(model.generation_config)
    config.max_length = n + 6
    ban = Ban()
    output = model.generate(
        inputs["input_ids"], config, LogitsProcessorList([ban]), StoppingCriteriaList([StopAt(n + 4)]), **rest
    )
    assert output.shape[1] == n + 4 and ban.length == n + 3
    expected = model.generate(**inputs, max_length=n + 4, logits_processor=LogitsProcessorList([Ban()]))
    assert torch.equal(output, expected)
    lengths = model.generate(inputs["input_ids"], config, **rest).shape[1], config.max_length
    assert lengths == (n + 6, n + 6)
    with pytest.raises(TypeError):
        model.generate(inputs["input_ids"], config, input_ids=inputs["input_ids"], inputs=1, **rest)
    reference = masked(family, model, inputs, max_new_tokens=4, logits_processor=LogitsProcessorList([Ban()]))
    assert torch.equal(new_tokens(output, inputs), reference)


@pytest.mark.parametrize(
    "call",
    [
        dict(repetition_penalty=3.0),
        dict(no_repeat_ngram_size=2),
        dict(bad_words_ids=[[5], [7, 8]]),
        dict(min_new_tokens=7, eos_token_id=list(range(40))),
        dict(min_length=60, eos_token_id=list(range(40))),
        dict(begin_suppress_tokens=list(range(30))),
        dict(exponential_decay_length_penalty=(2, 1.5), eos_token_id=3),
        dict(logits_processor=LogitsProcessorList([RepetitionPenaltyLogitsProcessor(3.0)])),
        dict(repetition_penalty=1.5, logits_processor=[RepetitionPenaltyLogitsProcessor(3.0)]),
        dict(logits_processor=LogitsProcessorList([NoRepeatNGramLogitsProcessor(2)]), num_beams=2),
    ],
    ids=lambda call: " ".join(call),
)
def test_processors_act_on_the_prompt_that_the_caller_knows(family, call):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 2))
    call = dict(max_new_tokens=9, output_scores=True, return_dict_in_generate=True) | call
    output = model.generate(**inputs, **call)
    model(**inputs)
    full = family.reference(model, inputs, generating=True)
    twin = family.model().generate(inputs["input_ids"], **full, **call)
    assert torch.equal(output.sequences, twin.sequences)
    for found, expected in zip(output.scores, twin.scores, strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)


def test_a_callers_processor_replaces_the_default_of_its_class(family):
    """1.2 once, and neither 1.5 nor 1.2 on top of 1.5; without padding, which the default leaves alone."""
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((2,))
    call = dict(max_new_tokens=8, output_scores=True, return_dict_in_generate=True)
    mine = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.2)])
    both = model.generate(**inputs, **call, repetition_penalty=1.5, logits_processor=mine)
    once = model.generate(**inputs, **call, repetition_penalty=1.2)
    default = model.generate(**inputs, **call, repetition_penalty=1.5)
    for scores, same, other in zip(both.scores, once.scores, default.scores, strict=True):
        torch.testing.assert_close(scores, same, **CLOSE)
        assert not torch.allclose(scores[0], other[0])
        break  # from the second token on the rows may differ
    assert torch.equal(both.sequences, once.sequences)


def test_a_callers_criterion_replaces_the_default_of_its_class(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((2,))
    n, varied = inputs["input_ids"].shape[1], dict(max_new_tokens=12, no_repeat_ngram_size=1)
    free = model.generate(**inputs, **varied)[0, n:].tolist()
    stop = StoppingCriteriaList([EosTokenCriteria(eos_token_id=free[6])])
    output = model.generate(**inputs, **varied, eos_token_id=free[1], stopping_criteria=stop)
    assert output[0, n:].tolist() == free[:7]
    stop = StoppingCriteriaList([MaxLengthCriteria(max_length=n + 5)])
    assert model.generate(**inputs, max_new_tokens=12, stopping_criteria=stop).shape[1] == n + 5


def test_a_callers_length_counts_the_prompt_it_knows(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1,))
    n = inputs["input_ids"].shape[1]
    first = int(model.generate(**inputs, max_new_tokens=1)[0, -1])
    for length in (n, n + 1):
        minimum = LogitsProcessorList([MinLengthLogitsProcessor(length, first, device="cpu")])
        found = int(model.generate(**inputs, max_new_tokens=1, logits_processor=minimum)[0, -1])
        assert (found == first) == (length == n)


# guidance


@pytest.mark.parametrize("use_cache", [True, False])
def test_guidance_runs_its_text_without_images(family, use_cache):
    if use_cache and family is not Llava:
        pytest.skip("Transformers cannot do that with the unpatched model")
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 2))
    call = dict(guidance_scale=1.7, max_new_tokens=5, use_cache=use_cache)
    for negative in ({}, {"negative_prompt_ids": inputs["input_ids"][:, -3:]}):
        output = model.generate(**inputs, **call, **negative)
        twin = dict(call, negative_prompt_ids=inputs["input_ids"][:, -1:]) | negative
        assert torch.equal(new_tokens(output, inputs), masked(family, model, inputs, **twin))


def guided(family, full, text, scale, steps):
    """Tokens of a twin guided by hand, from the masked full prompt, whose last column may have left."""
    twin, tokens, suppressed = family.model(), [], family.model().generation_config.suppress_tokens
    columns = torch.arange(full["attention_mask"].shape[1])
    last = (full["attention_mask"] * columns).argmax(dim=1)
    alive, position = full["attention_mask"], family.next_position(full)
    step = twin(**full, use_cache=True)
    logits = step.logits[torch.arange(len(last)), last]
    for i in range(steps):
        other = twin(input_ids=text, attention_mask=torch.ones_like(text), use_cache=False).logits[:, -1]
        own, other = logits.log_softmax(-1), other.log_softmax(-1)
        scores = scale * (own - other) + other
        scores[:, suppressed] = float("-inf")
        tokens.append(scores.argmax(-1, keepdim=True))
        text = torch.cat([text, tokens[-1]], dim=1)
        alive = torch.cat([alive, torch.ones_like(alive[:, :1])], dim=1)
        call = dict(input_ids=tokens[-1], attention_mask=alive, position_ids=position + i)
        step = twin(**call, **cached(step))
        logits = step.logits[:, -1]
    return torch.cat(tokens, dim=1)


@pytest.mark.parametrize("use_cache", [True, False])
def test_guidance_behind_a_prompt_that_ends_in_an_image(family, use_cache):
    """Where positions behind the prompt are shifted, those of the guiding text are not."""
    if use_cache and family is not Llava:
        pytest.skip("Transformers cannot do that with the unpatched model")
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3, method="random"), family.ending_in_an_image()
    text = torch.tensor([[5, 6]] * 2)
    call = dict(guidance_scale=1.7, max_new_tokens=5, use_cache=use_cache, negative_prompt_ids=text)
    model(**inputs)
    full = family.reference(model, inputs, generating=True)
    output = new_tokens(model.generate(**inputs, **call), inputs)
    assert torch.equal(output, guided(family, full, text, 1.7, 5))


# assistants


def test_a_pruned_assistant_is_refused_by_name(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1,))
    call = dict(max_new_tokens=4)
    refused(lambda: model.generate(**inputs, assistant_model=model, **call), model, "its own assistant")
    refused(lambda: model.generate(**inputs, assistant_early_exit=1, **call), model, "assistant_early_exit")
    config = GenerationConfig(assistant_early_exit=1, max_new_tokens=4)
    refused(lambda: model.generate(**inputs, generation_config=config), model, "assistant_early_exit")
    other = apply_vtp(family.model(), keep_ratio=0.5)
    refused(
        lambda: model.generate(**inputs, assistant_model=other, **call), model, "assistant_model is pruned"
    )
    wrapped = torch.nn.ModuleDict({"model": model})
    refused(lambda: model.generate(**inputs, assistant_model=wrapped, **call), model, "its own assistant")
    with pytest.raises(NotImplementedError, match="assistant_model is pruned"):
        family.model().generate(**inputs, assistant_model=other, **call)


# windows


def test_a_chunk_shorter_than_the_prompt_is_refused(family):
    inputs = family.inputs((1, 0))
    n = inputs["input_ids"].shape[1]
    for window in (n // 2, n - 1, n + 7):  # the last one is crossed by the eighth new token
        model = apply_vtp(family.windowed(window), keep_ratio=0.3)
        model.config.get_text_config().attention_chunk_size = window  # chunks of columns are not counted yet
        match = f"attend to {window} columns only"
        refused(lambda: model.generate(**inputs, max_new_tokens=8), model, match)  # noqa: B023
        if window < n:
            refused(lambda: model(**inputs), model, match)  # noqa: B023
        else:
            output = model(**inputs, use_cache=True)  # a loop by hand is told when it comes to it
            with pytest.raises(NotImplementedError, match=match):
                for _ in range(8):
                    output = model(input_ids=torch.tensor([[5], [6]]), **cached(output))
        with vtp(model, keep_ratio=1.0):
            model.generate(**inputs, max_new_tokens=8)  # nothing leaves


def test_a_window_that_the_prompt_fits_into_changes_nothing(family):
    inputs, steps = family.inputs((1, 2)), 5
    n = inputs["input_ids"].shape[1]
    model, twin = apply_vtp(family.windowed(n + steps), keep_ratio=0.3), family.windowed(n + steps)
    logits = model(**inputs).logits
    full = family.reference(model, inputs)
    torch.testing.assert_close(logits, expected_rows(twin(**full).logits, full["attention_mask"]), **CLOSE)
    full = family.reference(model, inputs, generating=True)
    output = model.generate(**inputs, max_new_tokens=steps)
    assert torch.equal(new_tokens(output, inputs), twin.generate(**full, max_new_tokens=steps))


# threads


@pytest.mark.parametrize("method", ["vtp", "prumerge", "cdpruner"])
def test_threads_get_what_they_get_one_after_the_other(family, method):
    if method == "prumerge" and family is not Llava:
        method = "dynamic"
    model = apply_vtp(family.model(), keep_ratio=0.4, method=method)
    calls = [family.inputs(rows, seed=seed) for seed, rows in enumerate([(1,), (2, 1), (1, 0, 3), (0, 1)])]
    alone = [(model(**inputs).logits, model.generate(**inputs, max_new_tokens=3)) for inputs in calls]

    def work(i):
        with torch.no_grad():
            inputs = calls[i % 4]
            return model(**inputs).logits, model.generate(**inputs, max_new_tokens=3)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(24)))
    for i, (logits, tokens) in enumerate(found):
        assert torch.equal(logits, alone[i % 4][0]) and torch.equal(tokens, alone[i % 4][1])
    assert vtp_stats(model).num_tokens


# masks, prompt learning, images that are missing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bool, torch.int32])
def test_masks_of_any_type(family, dtype):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 0, 2))
    expected = model(**inputs).logits, model.generate(**inputs, max_new_tokens=3)
    inputs["attention_mask"] = inputs["attention_mask"].to(dtype)
    assert torch.equal(model(**inputs).logits, expected[0])
    assert torch.equal(model.generate(**inputs, max_new_tokens=3), expected[1])


SIZES = dict(task_type="CAUSAL_LM", num_virtual_tokens=4, num_layers=3, num_transformer_submodules=1)


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(**SIZES, token_dim=32, num_attention_heads=4),
        PrefixTuningConfig(**SIZES, token_dim=16, num_attention_heads=2),
    ],
    ids=["prompt tuning", "prefix tuning"],
)
def test_virtual_tokens_of_peft(config):
    inputs = Llava.inputs((1, 2))
    torch.manual_seed(0)
    tuned = get_peft_model(Llava.model(), copy.deepcopy(config)).eval()
    model = apply_vtp(tuned, keep_ratio=0.3)
    output = model(**inputs).logits
    base = tuned.get_base_model()
    virtual = output.shape[1] - inputs["input_ids"].shape[1]
    full = Llava.reference(base, inputs)
    refused(lambda: model.generate(**inputs, max_new_tokens=3), base, "prompt or prefix tuning")
    remove_vtp(model)
    del full["position_ids"]  # PEFT makes them
    logits = model(**full).logits
    alive = torch.cat([torch.ones(2, virtual, dtype=torch.long), full["attention_mask"]], dim=1)
    torch.testing.assert_close(output, expected_rows(logits, alive), **CLOSE)
    model.generate(**inputs, max_new_tokens=3)


@pytest.mark.parametrize("change", ["fewer", "more"])
def test_images_that_do_not_match_the_placeholders(family, change):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 2))
    other = family.inputs((1, 1) if change == "fewer" else (2, 2))
    inputs |= {
        k: v for k, v in other.items() if k not in ("input_ids", "attention_mask", "mm_token_type_ids")
    }
    refused(lambda: model(**inputs), model, "placeholders .* for the .* tokens of pixel_values")
    refused(lambda: model.generate(**inputs), model, "placeholders .* for the .* tokens of pixel_values")


def test_a_cache_goes_by_either_name(family):
    """The older name is what scripts have; Transformers still takes it."""
    from transformers import DynamicCache

    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1,))
    expected = model(**inputs, use_cache=True)
    for given in (cached(DynamicCache()), {"past_key_values": DynamicCache()}):
        torch.testing.assert_close(model(**inputs, **given).logits, expected.logits, **CLOSE)
        (cache,) = given.values()
        step = dict(input_ids=torch.tensor([[7]]), **given)
        assert cache.get_seq_length() < inputs["input_ids"].shape[1]
        found = model(**step).logits
        again = {name: DynamicCache() for name in given}
        model(**inputs, **again)
        full = torch.cat([inputs["attention_mask"], torch.ones(1, 1, dtype=torch.long)], dim=1)
        torch.testing.assert_close(
            found, model(input_ids=torch.tensor([[7]]), attention_mask=full, **again).logits, **CLOSE
        )
        output = model.generate(**inputs, **{name: DynamicCache() for name in given}, max_new_tokens=3)
        assert torch.equal(output, model.generate(**inputs, max_new_tokens=3))


# a part of a model


def test_a_pruned_tower_within_an_unpruned_model_is_refused_by_name():
    model, inputs = Llava.model(), Llava.inputs((1, 2))
    apply_vtp(model.model.vision_tower, keep_ratio=0.5)
    for call in (model, model.generate, model.model):
        with pytest.raises(ValueError, match="vision tower alone is pruned.*apply_vtp\\(model") as caught:
            call(**inputs)
        assert "\n" not in str(caught.value)
    kept = model.model.vision_tower(inputs["pixel_values"]).last_hidden_state
    assert kept.shape[1] == 19  # by itself it goes on
    remove_vtp(model.model.vision_tower)
    twin = Llava.model()
    assert torch.equal(model.generate(**inputs, max_new_tokens=2), twin.generate(**inputs, max_new_tokens=2))
