"""The loss of each model on a batch, and how often it was right."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax
from transformers import CLIPModel, PreTrainedModel

from .batches import TARGETS
from .models import WIDTH

NOTHING = 0.2  # weight of places that show nothing, since most do


class Places(nn.Module):
    """A head for training only: predicts from every image token what its place shows."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, sum(TARGETS))

    def loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of color, shape and writing; features [places, WIDTH], targets [places, 3]."""
        logits = self.head(self.norm(features)).float().split(TARGETS, dim=-1)
        weights = [torch.tensor([NOTHING] + [1.0] * (n - 1), device=features.device) for n in TARGETS]
        each = zip(logits, targets.T, weights, strict=True)
        return sum(cross_entropy(guess, target, weight) for guess, target, weight in each)


def normalised(pixel_values: Tensor) -> Tensor:
    """Pixels from uint8 to -1 … 1, as the image processors of the testbed make them."""
    return pixel_values.float() / 127.5 - 1


def clip_loss(model: CLIPModel, places: Places, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Contrast in which every true caption of a picture counts as its own, and the loss of places."""
    vision = model.vision_model(pixel_values=normalised(batch["pixel_values"]), output_hidden_states=True)
    words = model.text_model(input_ids=batch["input_ids"])
    image = model.visual_projection(vision.pooler_output).float()
    text = model.text_projection(words.pooler_output).float()
    image, text = (x / x.norm(dim=-1, keepdim=True) for x in (image, text))
    logits = model.logit_scale.exp().clamp(max=100) * image @ text.T  # [pictures, captions]
    fits = batch["fits"]
    by_image = -(log_softmax(logits, 1) * fits / fits.sum(1, keepdim=True)).sum(1).mean()
    by_text = -(log_softmax(logits, 0) * fits / fits.sum(0, keepdim=True)).sum(0).mean()
    shown = places.loss(vision.hidden_states[-2][:, 1:].flatten(0, 1), batch["targets"])
    right = fits.gather(1, logits.argmax(1, keepdim=True)).mean()
    contrast = (by_image + by_text) / 2
    return contrast + 0.5 * shown, {"contrast": contrast, "places": shown, "right": right}


def answer_loss(
    model: PreTrainedModel, places: Places, batch: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the answers' tokens, and the loss of places; questions share one image's features."""
    media = {"pixel_values": normalised(batch["pixel_values"])}
    if "image_grid_thw" in batch:
        media["image_grid_thw"] = batch["image_grid_thw"]
    found = model.model.get_image_features(**media, return_dict=True).pooler_output
    features = torch.cat(list(found))  # [places of all images, WIDTH]
    logits, labels = answers_after(model, features, batch)
    answers = cross_entropy(logits, labels)
    shown = places.loss(features, batch["targets"])
    right = (logits.argmax(-1) == labels).float().mean()
    return answers + 0.3 * shown, {"answers": answers, "places": shown, "right": right}


def answers_after(
    model: PreTrainedModel, features: Tensor, batch: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Logits [n, words] and labels [n] of all tokens to predict, after `features` [places, WIDTH]."""
    ids, part, labels = batch["input_ids"], batch["part"], batch["labels"]
    embeds = model.get_input_embeddings()(ids).to(features.dtype)
    where = (ids == model.config.image_token_id)[..., None].expand_as(embeds)
    output = model.model.language_model(
        inputs_embeds=embeds.masked_scatter(where, features),
        attention_mask=_mask(part, embeds.dtype),
        position_ids=batch["position_ids"],
        use_cache=False,
    ).last_hidden_state
    asked = labels != -100
    return model.lm_head(output[asked]).float(), labels[asked]


def _mask(part: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask [B, 1, L, L]: a token sees earlier ones of the image and of its own question."""
    rows, columns = part[:, :, None], part[:, None]
    length = part.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=part.device).tril()
    visible = earlier & ((columns == 0) | (columns == rows))
    mask = torch.zeros(visible.shape, dtype=dtype, device=part.device)
    return mask.masked_fill(~visible, torch.finfo(dtype).min)[:, None]
