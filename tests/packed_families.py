"""Pairs of tiny packed models, pruned and not, prompts with videos for them, and what DeepStack adds."""

from contextlib import contextmanager
from dataclasses import replace

import torch
from families import made
from vlm import expected_rows
from vlm_families import NEVER_SEEN, Pair, inner_of

from hf_vtp.verifying.tiny import packed

CLIPS = [(2, 4, 4), (4, 4, 8), (2, 8, 4)]  # frames, rows and columns of patches
PICTURE = (1, 8, 8)
IMAGE, VIDEO, START, END = packed.IMAGE, packed.VIDEO, packed.START, packed.END


class PackedPair(Pair):
    """A Pair whose twin adds DeepStack's features; with a running state in its layers, it reads no masks."""

    @property
    def steps_over_masks(self):
        return "qwen3_5" in self.model_type

    @property
    def media(self):
        """Placeholders of GLM's videos are those of its images."""
        return dict.fromkeys(super().media, IMAGE) if self.model_type.startswith("glm") else super().media

    @torch.no_grad()
    def expected_logits(self, prompt):
        with self.deepstack(prompt):
            if not self.steps_over_masks:
                return super().expected_logits(prompt)
            short = without_masked(prompt)
            found = self.twin(
                inputs_embeds=short.embeds, attention_mask=short.mask, position_ids=short.positions
            ).logits
        full = found.new_zeros(*prompt.mask.shape, found.shape[-1])
        full[prompt.mask != 0] = found[short.mask != 0]
        return expected_rows(full, prompt.mask)

    def expected_words(self, prompt, **arguments):
        with self.deepstack(prompt):
            return super().expected_words(
                without_masked(prompt) if self.steps_over_masks else prompt, **arguments
            )

    def prompt(self, inputs, generating=False):
        prompt = super().prompt(inputs, generating)
        self.added = self.of_layers(inputs)
        return prompt

    @torch.no_grad()
    def of_layers(self, inputs):
        """What DeepStack adds to each column, [B, n, D] a layer, of what the pruned tower gives."""
        inner, found = inner_of(self.model), {}
        for medium, token in self.media.items():
            names = {"image": ("pixel_values", "image_grid_thw")}
            names["video"] = ("pixel_values_videos", "video_grid_thw")
            given = [inputs.get(name) for name in names[medium]]
            if given[0] is None:
                continue
            more = [inputs[k] for k in (f"{medium}_merge_sizes",) if k in inputs]
            output = getattr(inner, f"get_{medium}_features")(*given, *more, return_dict=True)
            for i, rows in enumerate(getattr(output, "deepstack_features", None) or ()):
                rows = rows if isinstance(rows, torch.Tensor) else torch.cat(list(rows))
                full = found.setdefault(i, torch.zeros(*inputs["input_ids"].shape, rows.shape[-1]))
                full[inputs["input_ids"] == token] = rows.nan_to_num(NEVER_SEEN)
        return [found[i] for i in sorted(found)]

    @contextmanager
    def deepstack(self, prompt):
        """The twin's first layers get what DeepStack adds, in a forward of as many columns as have it."""

        def add(module, args, kwargs):
            n = self.added[0].shape[1]
            batch, columns = kwargs["inputs_embeds"].shape[:2]
            if columns < n:
                return None
            full = [
                torch.nn.functional.pad(x.repeat_interleave(batch // len(x), dim=0), (0, 0, 0, columns - n))
                for x in self.added
            ]
            mask = full[0].abs().sum(dim=-1) > 0
            return args, {
                **kwargs,
                "visual_pos_masks": mask,
                "deepstack_visual_embeds": [x[mask] for x in full],
            }

        if not self.added:
            yield
            return
        handle = inner_of(self.twin).language_model.register_forward_pre_hook(add, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def without_masked(prompt):
    """A Prompt without its masked columns, padded on the left."""
    alive = prompt.mask != 0
    n = int(alive.sum(dim=1).max())

    def short(x):
        rows = [row[there] for row, there in zip(x, alive, strict=True)]
        return torch.stack([torch.cat([row.new_zeros(n - len(row), *row.shape[1:]), row]) for row in rows])

    positions = torch.stack([short(x) for x in prompt.positions])
    columns = {name: short(x) for name, x in prompt.columns.items()}
    return replace(
        prompt,
        ids=short(prompt.ids),
        embeds=short(prompt.embeds),
        mask=short(prompt.mask),
        positions=positions,
        columns=columns,
    )


def video_inputs(model_type, picture=True, seed=3):
    """A prompt with a video (and an image), one with two videos, and one of text, as processors lay them out.

    Where videos have their images' placeholders, Transformers takes no image beside them.
    """
    inputs = made(model_type, kind_of(model_type))[1]
    numbers = torch.Generator().manual_seed(seed)
    rows = [[*video(model_type, CLIPS[0]), 5], [7, *video(model_type, CLIPS[1]), 8], [11, 12, 13]]
    rows[1] += [*video(model_type, CLIPS[2]), 9, 10]
    picture = picture and not model_type.startswith("glm")
    if picture:
        rows[0] += [START, *[IMAGE] * 16, END, 6, 14]
    n = max(map(len, rows))
    ids = torch.tensor([[0] * (n - len(row)) + row for row in rows])
    given = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    if "mm_token_type_ids" in inputs:
        token = IMAGE if model_type.startswith("glm") else VIDEO
        types = (ids == token).int() * 2
        given["mm_token_type_ids"] = types + (ids == IMAGE).int() * picture
    if "moe_mm_token_type_ids" in inputs:
        given["moe_mm_token_type_ids"] = torch.isin(ids, torch.tensor([IMAGE, VIDEO, START, END])).int()
    width = inputs["pixel_values"].shape[1:]
    for name, grids in (("image", [PICTURE]), ("video", CLIPS)):
        if name == "image" and not picture:
            continue
        pixels = "pixel_values" if name == "image" else "pixel_values_videos"
        count = sum(t * h * w for t, h, w in grids)
        given[pixels] = torch.randn(count, *width, generator=numbers)
        given[f"{name}_grid_thw"] = torch.tensor(grids)
        if model_type == "video_llama_3":
            given[f"{name}_merge_sizes"] = torch.full((len(grids),), 2)
    if "omni" in model_type:
        given["video_second_per_grid"] = torch.tensor([1.0, 0.5, 2.0])
    return given


def video(model_type, grid):
    """The ids that stand for a video."""
    t, h, w = grid
    frame = h * w // 4
    if model_type.startswith("glm"):  # frames are images there
        ids = [i for second in range(t) for i in (START, *[IMAGE] * frame, END, 20 + second)]
        return [35, *ids, 36]
    if model_type.startswith(("qwen3_vl", "qwen3_5")):  # with timestamps
        return [i for second in range(t) for i in (20 + second, START, *[VIDEO] * frame, END)]
    if model_type == "video_llama_3":
        return [i for second in range(t) for i in (20 + second, *[VIDEO] * frame)]
    return [START, *[VIDEO] * (frame * t // 2 if "ernie" in model_type else frame * t), END]


def kind_of(model_type):
    from families import classes

    return classes(model_type)[0]
