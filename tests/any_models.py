"""Models that nobody has heard of: a Llama that reads patches, in the forms an encoder may return them."""

import inspect

import torch
from torch import nn
from transformers import GenerationMixin, LlamaConfig, LlamaModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast

from hf_vtp.verifying.tiny.others import IMAGE, PAD, START, WORDS

CACHE = "cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values"
TEXT = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
TEXT |= dict(num_key_value_heads=2, vocab_size=WORDS, max_position_embeddings=128, pad_token_id=PAD)
TEXT |= dict(bos_token_id=None, eos_token_id=None)
FORMS = {  # features [images, 16, D] as a class may return them
    "output": lambda x: BaseModelOutputWithPooling(pooler_output=x),
    "tensor": lambda x: x,
    "list": list,
    "tuple of grids": lambda x: tuple(x.unflatten(1, (4, 4))),
    "all images together": lambda x: x.flatten(0, 1),
}


class PatchLlamaConfig(PreTrainedConfig):
    model_type = "patch_llama"
    sub_configs = {"text_config": LlamaConfig}

    def __init__(self, form="output", image_token_id=IMAGE, text_config=None, **kwargs):
        self.form, self.image_token_id = form, image_token_id
        self.text_config = LlamaConfig(**TEXT) if text_config is None else text_config
        super().__init__(**kwargs)

    def get_text_config(self, *args, **kwargs):
        return self.text_config


class PatchLlamaPreTrained(PreTrainedModel):
    config_class = PatchLlamaConfig
    _supports_sdpa = True

    def get_image_features(self, pixel_values):
        """Features of images [images, 3, 16, 16]."""
        return FORMS[self.config.form](self.patches(pixel_values).flatten(2).transpose(1, 2))

    def embedded(self, input_ids, pixel_values, inputs_embeds):
        """The prompt's embeddings with the features in their places."""
        if inputs_embeds is None:
            inputs_embeds = self.language_model.embed_tokens(input_ids)
        if pixel_values is None:
            return inputs_embeds
        features = self.get_image_features(pixel_values)
        features = getattr(features, "pooler_output", features)
        if not isinstance(features, torch.Tensor):
            features = torch.cat([x.flatten(0, -2) for x in features])
        where = (input_ids == self.config.image_token_id)[..., None].expand_as(inputs_embeds)
        assert where.sum() == features.numel(), "placeholders and features differ in number"
        return inputs_embeds.masked_scatter(where, features.to(inputs_embeds))

    def run(self, input_ids, pixel_values, inputs_embeds, **kwargs):
        return self.language_model(
            inputs_embeds=self.embedded(input_ids, pixel_values, inputs_embeds), **kwargs
        )

    def get_input_embeddings(self):
        return self.language_model.embed_tokens


class ReadsOnce:
    def prepare_inputs_for_generation(self, *args, pixel_values=None, is_first_iteration=False, **kwargs):
        """Pixels are read with the prompt only."""
        told = dict(is_first_iteration=is_first_iteration, **kwargs)
        inputs = super().prepare_inputs_for_generation(*args, **told)
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs["pixel_values"] = pixel_values
        return inputs


class PatchLlamaModel(PatchLlamaPreTrained):
    """The module that puts features into the prompt."""

    def __init__(self, config):
        super().__init__(config)
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.language_model = LlamaModel(config.text_config)
        self.post_init()

    def forward(self, input_ids=None, pixel_values=None, inputs_embeds=None, **kwargs):
        return self.run(input_ids, pixel_values, inputs_embeds, **kwargs)


class AddsInside(PatchLlamaModel):
    """Reads more of a prompt than embeddings and masks say: a number for every column."""

    def run(self, input_ids, pixel_values, inputs_embeds, **kwargs):
        embeds = self.embedded(input_ids, pixel_values, inputs_embeds)
        columns = torch.arange(embeds.shape[1], device=embeds.device)[None, :, None]
        return self.language_model(inputs_embeds=embeds + columns.sin(), **kwargs)


class AsksNobody(PatchLlamaModel):
    """Goes past its own get_image_features."""

    def embedded(self, input_ids, pixel_values, inputs_embeds):
        features = type(self).get_image_features(self, pixel_values).pooler_output.flatten(0, 1)
        embeds = self.get_input_embeddings()(input_ids)
        return embeds.masked_scatter((input_ids == self.config.image_token_id)[..., None], features)


class PatchLlama(ReadsOnce, PatchLlamaPreTrained, GenerationMixin):
    """A language head around it."""

    def __init__(self, config):
        super().__init__(config)
        self.model = PatchLlamaModel(config)
        self.lm_head = nn.Linear(16, WORDS, bias=False)
        self.post_init()

    def get_image_features(self, pixel_values):
        return self.model.get_image_features(pixel_values)

    def forward(self, input_ids=None, pixel_values=None, inputs_embeds=None, labels=None, **kwargs):
        output = self.model(input_ids, pixel_values, inputs_embeds, **kwargs)
        return with_head(self, output, labels)


class FlatPatchLlama(ReadsOnce, PatchLlamaPreTrained, GenerationMixin):
    """The same in one class."""

    def __init__(self, config):
        super().__init__(config)
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.language_model = LlamaModel(config.text_config)
        self.lm_head = nn.Linear(16, WORDS, bias=False)
        self.post_init()

    def forward(self, input_ids=None, pixel_values=None, inputs_embeds=None, labels=None, **kwargs):
        return with_head(self, self.run(input_ids, pixel_values, inputs_embeds, **kwargs), labels)


def with_head(model, output, labels):
    logits = model.lm_head(output.last_hidden_state)
    loss = None if labels is None else model.loss_function(logits, labels, WORDS)
    return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: getattr(output, CACHE)})


def named_arguments(forward):
    """A forward whose arguments `generate` and others read from its signature, by this release's names."""
    signature = inspect.signature(forward)
    names = ("attention_mask", "position_ids", CACHE, "use_cache", "logits_to_keep")
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names[:-1]]
    *own, rest = signature.parameters.values()
    forward.__signature__ = signature.replace(parameters=[*own, *more, rest])


for kind in (PatchLlamaModel, PatchLlama, FlatPatchLlama):
    named_arguments(kind.forward)


def patch_llama(kind=PatchLlama, form="output"):
    """A random model of the class and a batch: two images, one, and none, padded on the left."""
    torch.manual_seed(0)
    model = kind(PatchLlamaConfig(form=form)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=2.0 * weight[0].numel() ** -0.5)
    image = [START, *[IMAGE] * 16]
    rows = [[*image[1:], 5, *image, 6, 7], [3, 4, *image, 8], [9, 10, 11]]
    ids = torch.tensor([[PAD] * (max(map(len, rows)) - len(row)) + row for row in rows])
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return model, {"input_ids": ids, "attention_mask": (ids != PAD).long(), "pixel_values": pixels}
