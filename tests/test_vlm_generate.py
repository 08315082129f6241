"""Language-model families, `generate`: every mode gives the tokens of the masked full model."""

import pytest
import torch
from transformers import DynamicCache, LogitsProcessor, StaticCache, StoppingCriteria, TextStreamer
from transformers.generation.streamers import BaseStreamer
from vlm import EOS, FAMILIES, cache_of, cached, masked, new_tokens

from hf_vtp import apply_vtp

CLOSE = dict(atol=1e-5, rtol=1e-5)
pytestmark = pytest.mark.models


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.mark.parametrize("rows", [(1,), (1, 0, 3), (2, 2)])
@pytest.mark.parametrize(
    "mode",
    [
        dict(),
        dict(num_beams=3),
        dict(num_beams=3, num_return_sequences=2, length_penalty=0.7),
        dict(cache_implementation="static"),
        dict(repetition_penalty=1.3),
        dict(no_repeat_ngram_size=2),
        dict(eos_token_id=[EOS, 3, 5, 9]),
        dict(min_new_tokens=4, eos_token_id=list(range(40))),
    ],
    ids=lambda mode: "-".join(mode) or "greedy",
)
def test_tokens_are_the_masked_models(family, mode, rows):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs(rows)
    told = dict(max_new_tokens=8, **mode)
    reference = masked(family, model, inputs, **{k: v for k, v in told.items() if k not in PROMPT_AWARE})
    if set(mode) & set(PROMPT_AWARE):  # the reference has no ids to look at: hand them over
        full = family.reference(model, inputs, generating=True)
        reference = family.model().generate(inputs["input_ids"], **full, **told)[
            :, inputs["input_ids"].shape[1] :
        ]
    assert torch.equal(new_tokens(model.generate(**inputs, **told), inputs), reference)


PROMPT_AWARE = ("repetition_penalty", "no_repeat_ngram_size")


@pytest.mark.parametrize("mode", [dict(), dict(num_beams=2)], ids=["greedy", "beams"])
def test_without_a_cache(family, mode):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 1))
    with_cache = model.generate(**inputs, max_new_tokens=5, **mode)
    assert torch.equal(model.generate(**inputs, max_new_tokens=5, use_cache=False, **mode), with_cache)
    one = family.inputs(
        (1,)
    )  # no padding: Transformers drops a mask of ones, and gaps would look like packing
    with_cache = model.generate(**one, max_new_tokens=5, **mode)
    assert torch.equal(model.generate(**one, max_new_tokens=5, use_cache=False, **mode), with_cache)


def test_positional_ids_and_no_mask(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 0, 3))
    expected = model.generate(**inputs, max_new_tokens=5)
    ids, mask = inputs.pop("input_ids"), inputs.pop("attention_mask")
    assert torch.equal(model.generate(ids, attention_mask=mask, **inputs, max_new_tokens=5), expected)
    assert torch.equal(model.generate(ids, **inputs, max_new_tokens=5), expected)  # from the padding token


def test_inputs_embeds(family):
    if not family.embeds_are_ids:
        pytest.skip("positions come from the ids")
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 2))
    expected = model.generate(**inputs, max_new_tokens=5)
    ids = inputs.pop("input_ids")
    embeds = model.get_input_embeddings()(ids)
    alone = model.generate(inputs_embeds=embeds, **inputs, max_new_tokens=5)
    assert torch.equal(alone, expected[:, ids.shape[1] :])
    both = model.generate(input_ids=ids, inputs_embeds=embeds, **inputs, max_new_tokens=5)
    assert torch.equal(both, expected)


def test_sampling_follows_the_seed(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 2))
    told = dict(do_sample=True, top_k=20, temperature=1.5, max_new_tokens=8, num_return_sequences=2)
    model(**inputs)
    twin, full = family.model(), family.reference(model, inputs, generating=True)
    outputs = []
    for _ in range(2):
        torch.manual_seed(5)
        outputs.append(new_tokens(model.generate(**inputs, **told), inputs))
    torch.manual_seed(5)
    reference = twin.generate(**full, **told)
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], reference)


@pytest.mark.parametrize("where", ["argument", "config", "model"])
def test_lengths_count_the_full_prompt(family, where):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 2))
    n = inputs["input_ids"].shape[1]
    lengths = dict(max_length=n + 6, min_length=n + 4, eos_token_id=list(range(60)))
    if where == "argument":
        output = model.generate(**inputs, **lengths)
    elif where == "config":
        from transformers import GenerationConfig

        config = GenerationConfig(pad_token_id=0, **lengths)
        output = model.generate(**inputs, generation_config=config)
        assert config.max_length == n + 6  # the caller's object stays as it was
    else:
        for name, value in lengths.items():
            setattr(model.generation_config, name, value)
        output = model.generate(**inputs)
        assert model.generation_config.max_length == n + 6
    assert n + 4 < output.shape[1] <= n + 6
    model.generation_config.max_length = None


def test_static_cache_of_the_callers(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 0, 2))
    expected = model.generate(**inputs, max_new_tokens=5)
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=200)
    assert torch.equal(model.generate(**inputs, max_new_tokens=5, **cached(cache)), expected)
    cache.reset()
    text = family.inputs((0, 0, 0))  # an emptied cache forgets the prompt that was in it
    plain = family.model().generate(**text, max_new_tokens=5)
    assert torch.equal(model.generate(**text, max_new_tokens=5, **cached(cache)), plain)


class Seen(LogitsProcessor, BaseStreamer):
    """Records the ids it is shown."""

    def __init__(self):
        self.ids, self.ended = [], False

    def __call__(self, input_ids, scores):
        self.ids.append(input_ids.clone())
        return scores

    def put(self, value):
        self.ids.append(value)

    def end(self):
        self.ended = True


@pytest.mark.parametrize("beams", [1, 2])
def test_callbacks_see_the_whole_sequence(family, beams):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 2))
    processor, allowed = Seen(), []

    class Stop(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            seen.append(input_ids)
            return torch.full((len(input_ids),), input_ids.shape[1] >= n + 3)

    def prefix(batch, ids):
        allowed.append((batch, ids))
        return list(range(80))

    seen, n = [], inputs["input_ids"].shape[1]
    output = model.generate(
        **inputs,
        max_new_tokens=9,
        num_beams=beams,
        logits_processor=[processor],
        stopping_criteria=[Stop()],
        prefix_allowed_tokens_fn=prefix,
    )
    assert output.shape[1] == n + 3
    for ids in (*processor.ids, *seen):
        assert torch.equal(ids[:, :n], inputs["input_ids"].repeat_interleave(len(ids) // 2, 0))
    assert all(torch.equal(ids[:n], inputs["input_ids"][b]) for b, ids in allowed)


def test_streamer_gets_the_prompt_first(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((2,))
    streamer = Seen()
    output = model.generate(**inputs, max_new_tokens=4, streamer=streamer)
    assert torch.equal(streamer.ids[0], inputs["input_ids"])
    assert torch.cat([x.flatten() for x in streamer.ids]).tolist() == output[0].tolist() and streamer.ended
    assert issubclass(TextStreamer, BaseStreamer)


def test_prompt_lookup_and_assisted_decoding_are_greedy(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((2,))
    expected = model.generate(**inputs, max_new_tokens=10, eos_token_id=EOS)
    assert torch.equal(
        model.generate(**inputs, max_new_tokens=10, eos_token_id=EOS, prompt_lookup_num_tokens=3), expected
    )
    for assistant in (family.model(seed=3), *family.text_models()):
        output = model.generate(**inputs, max_new_tokens=10, eos_token_id=EOS, assistant_model=assistant)
        assert torch.equal(output, expected)


def test_outputs_as_a_dictionary(family):
    model = apply_vtp(family.model(implementation="eager"), keep_ratio=0.3)
    inputs = family.inputs((1, 2))
    told = dict(max_new_tokens=3, return_dict_in_generate=True, output_scores=True, output_logits=True)
    output = model.generate(**inputs, **told, output_hidden_states=True, output_attentions=True)
    assert torch.equal(output.sequences, model.generate(**inputs, max_new_tokens=3))
    model(**inputs)
    full = family.reference(model, inputs, generating=True)
    reference = family.model(implementation="eager").generate(**full, **told)
    for a, b in zip(output.scores, reference.scores, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    # hidden states and attentions of the prompt are those of the condensed one
    m = cache_of(output).vtp_prompt.mask.shape[1]
    assert output.hidden_states[0][0].shape[1] == m < inputs["input_ids"].shape[1]
    assert output.attentions[0][0].shape[2:] == (m, m) and output.attentions[1][0].shape[2:] == (1, m + 1)


def second_turn(family, first, output, images, seed=9):
    """Full ids of turn one, its answer, and a new question that brings `images` images to each row."""
    question = family.inputs((images,) * len(output), seed=seed)
    answer = torch.ones_like(output[:, first["input_ids"].shape[1] :])
    text = {
        "input_ids": torch.cat([output, question["input_ids"]], dim=1),
        "attention_mask": torch.cat([first["attention_mask"], answer, question["attention_mask"]], dim=1),
    }
    text |= family.types(text["input_ids"])
    return text, {k: v for k, v in question.items() if k not in text}


@pytest.mark.parametrize("rows", [(1,), (1, 0, 2)])
@pytest.mark.parametrize("images", [0, 1])
@pytest.mark.parametrize("whole", [True, False], ids=["full ids", "new ids"])
def test_second_turn_on_the_returned_cache(family, rows, images, whole):
    model, first = apply_vtp(family.model(), keep_ratio=0.3), family.inputs(rows)
    one = model.generate(**first, max_new_tokens=4, return_dict_in_generate=True)
    text, media = second_turn(family, first, one.sequences, images)
    told = dict(text)
    columns = cache_of(one).get_seq_length() + cache_of(one).vtp_prompt.dropped
    if not whole:
        told["input_ids"] = text["input_ids"][:, columns:]
    two = model.generate(**told, **media, **cached(one), max_new_tokens=5)
    assert torch.equal(two[:, : told["input_ids"].shape[1]], told["input_ids"])
    # the same conversation in one go: every image is pruned alike, whichever turn brought it
    merged = family.merge(first, media, rows, images)
    at_once = model.generate(**text, **merged, max_new_tokens=5)
    assert torch.equal(two[:, told["input_ids"].shape[1] :], at_once[:, text["input_ids"].shape[1] :])


def test_second_turn_after_text_alone_brings_an_image(family):
    model, first = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((0, 0))
    one = model.generate(**first, max_new_tokens=4, return_dict_in_generate=True)
    text, media = second_turn(family, first, one.sequences, 1)
    two = model.generate(**text, **media, **cached(one), max_new_tokens=5)
    assert torch.equal(two, model.generate(**text, **media, max_new_tokens=5))


@pytest.mark.parametrize("masked_loop", [True, False])
def test_decode_loop_by_hand(family, masked_loop):
    model, inputs = (
        apply_vtp(family.model(), keep_ratio=0.3),
        family.inputs((1, 0, 2) if masked_loop else (2, 2)),
    )
    if not masked_loop:
        inputs = family.inputs((2,))
        del inputs["attention_mask"]
    n = inputs["input_ids"].shape[1]
    output = model(**inputs, use_cache=True)
    reference_in = {
        **inputs,
        "attention_mask": inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])),
    }
    full = family.reference(model, reference_in)
    twin = family.model()
    expected = twin(**full, use_cache=True)
    ids, tokens = output.logits[:, -1:].argmax(-1), []
    mask, alive = reference_in["attention_mask"], full["attention_mask"]
    position = family.next_position(full)
    for step in range(4):
        mask, alive = (torch.cat([x, torch.ones_like(x[:, :1])], dim=1) for x in (mask, alive))
        told = {"attention_mask": mask} if masked_loop else {}
        output = model(input_ids=ids, **cached(output), **told)
        expected = twin(
            input_ids=ids,
            **cached(expected),
            attention_mask=alive,
            position_ids=position + step,
        )
        torch.testing.assert_close(output.logits, expected.logits, **CLOSE)
        ids = output.logits[:, -1:].argmax(-1)
        tokens.append(ids)
    assert cache_of(output).get_seq_length() < n


def test_a_decode_step_costs_one_early_return(family):
    """Once the prompt is in the cache, the operators that run are those of a native prompt of that length."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.total += 1
            return function(*args, **(kwargs or {}))

    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1,))
    native, text = family.model(), family.inputs((0,), tail=11)
    totals = {}
    for name, m, prompt in (("pruned", model, inputs), ("native", native, text)):
        for new in (3, 9):
            with Count() as count:
                m.generate(**prompt, max_new_tokens=new)
            totals[name, new] = count.total
    per_step = {name: (totals[name, 9] - totals[name, 3]) / 6 for name in ("pruned", "native")}
    assert per_step["pruned"] <= per_step["native"]


def test_a_prompt_that_ends_in_an_image(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.1, method="random"), family.ending_in_an_image()
    output = model(**inputs, use_cache=True)
    assert output.logits.shape[1] == inputs["input_ids"].shape[1]
    generated = model.generate(**inputs, max_new_tokens=5)
    full = family.reference(model, inputs, generating=True)
    last = expected_last(full["attention_mask"])
    twin = family.model()
    step = twin(**full, use_cache=True)
    ids = step.logits[torch.arange(len(last)), last].argmax(-1, keepdim=True)
    alive, position, tokens = full["attention_mask"], family.next_position(full), [ids]
    for i in range(4):
        alive = torch.cat([alive, torch.ones_like(alive[:, :1])], dim=1)
        step = twin(
            input_ids=ids,
            **cached(step),
            attention_mask=alive,
            position_ids=position + i,
        )
        ids = step.logits[:, -1].argmax(-1, keepdim=True)
        tokens.append(ids)
    expected = torch.cat(tokens, dim=1)
    assert torch.equal(new_tokens(generated, inputs), expected)


def expected_last(alive):
    """The last alive column of each row: it predicts the first new token."""
    return torch.tensor([max(i for i, a in enumerate(row.tolist()) if a) for row in alive])


def test_compact_positions(family):
    model, inputs = family.model(), family.inputs((1, 0, 3))
    apply_vtp(model, keep_ratio=0.3, positions="compact")
    model(**inputs)
    full = family.reference(model, inputs, generating=True)
    full["position_ids"] = family.compact_positions(inputs, full)
    reference = family.model().generate(**full, max_new_tokens=8)
    assert torch.equal(new_tokens(model.generate(**inputs, max_new_tokens=8), inputs), reference)


def test_chunked_prefill(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 0, 3))
    expected = model.generate(**inputs, max_new_tokens=5)
    for size in (4, 17):
        output = model.generate(**inputs, max_new_tokens=5, prefill_chunk_size=size)
        assert torch.equal(output, expected)


def test_what_cannot_be_supported_is_refused_before_any_compute(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1,))
    model.model.get_input_embeddings().register_forward_pre_hook(lambda *_: pytest.fail("computed"))
    with pytest.raises(NotImplementedError, match="paged"):
        model.generate(**inputs, cache_implementation="paged")
    with pytest.raises(NotImplementedError, match="pass their pixel values"):
        model.generate(input_ids=inputs["input_ids"], mm_encoder_outputs={"image": object()})
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        model.generate(**{k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask")})


def test_beams_with_several_images_keep_their_order(family):
    """Two images in a row, beams: each beam must see the row's own images in their order."""
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((2, 2))
    together = model.generate(**inputs, max_new_tokens=6, num_beams=3)
    for r in range(2):
        alone = model.generate(**family.row(inputs, r, 2 * r, 2), max_new_tokens=6, num_beams=3)
        assert torch.equal(alone[0], together[r])


def test_cache_object_remembers_and_copies(family):
    import copy

    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1,))
    cache = DynamicCache(config=model.config.get_text_config())
    model.generate(**inputs, **cached(cache), max_new_tokens=3)
    assert cache.vtp_prompt.length == inputs["input_ids"].shape[1]
    assert copy.deepcopy(cache).vtp_prompt.length == cache.vtp_prompt.length
