"""A tiny Qwen2.5-VL (and Qwen2-VL), prompts with images of several sizes, and the masked references."""

import copy

import torch
from models import sharpen
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from hf_vtp import vtp_stats

IMAGE, VIDEO, START, END, PAD, VOCAB = 90, 94, 92, 93, 0, 97
GRIDS = [
    (1, 8, 12),
    (1, 4, 4),
    (1, 12, 8),
    (1, 8, 12),
    (1, 4, 8),
    (1, 8, 8),
]  # in patches; windows of 2 × 2 units


class Qwen:
    """4 blocks, of which 1 and 3 see the whole image; windows of 2 × 2 units; three rows of positions."""

    name = "qwen2_5_vl"
    embeds_are_ids = False  # without ids there is no m-RoPE
    classes = (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration)
    vocabulary = VOCAB
    tokens = dict(
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END
    )
    vision = dict(
        depth=4,
        hidden_size=32,
        intermediate_size=48,
        num_heads=2,
        patch_size=4,
        window_size=16,
        fullatt_block_indexes=[1, 3],
        out_hidden_size=32,
        spatial_merge_size=2,
        temporal_patch_size=2,
    )

    @classmethod
    def model(cls, seed=0, implementation="sdpa"):
        torch.manual_seed(seed)
        config = cls.classes[0](
            vision_config=cls.vision,
            text_config=dict(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                vocab_size=cls.vocabulary,
                max_position_embeddings=2048,
                rope_parameters=dict(rope_type="default", rope_theta=10000.0, mrope_section=[1, 1, 2]),
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=PAD,
                tie_word_embeddings=False,
            ),
            **cls.tokens,
            tie_word_embeddings=False,
        )
        model = sharpen(cls.classes[1]._from_config(config, attn_implementation=implementation))
        with torch.no_grad():
            model.lm_head.weight.normal_(std=0.5)
            model.model.language_model.embed_tokens.weight.normal_(std=0.5)
            for block in model.model.visual.blocks:
                block.attn.qkv.weight.normal_(std=0.4)
                block.attn.qkv.bias.normal_(std=0.2)
        model.generation_config.pad_token_id = PAD
        model.generation_config.suppress_tokens = list(cls.tokens.values())
        return model.eval()

    @classmethod
    def windowed(cls, window):
        """The same with two layers behind the first that attend to `window` columns."""
        model = cls.model()
        config = copy.deepcopy(model.config)
        config.text_config.layer_types = ["full_attention", "sliding_attention", "sliding_attention"]
        config.text_config.sliding_window = window
        other = cls.classes[1]._from_config(config)
        other.load_state_dict(model.state_dict())
        other.generation_config = model.generation_config
        return other.eval()

    @classmethod
    def types(cls, ids):
        image, video = cls.tokens["image_token_id"], cls.tokens["video_token_id"]
        return {"mm_token_type_ids": (ids == image).int() + 2 * (ids == video).int()}

    @classmethod
    def inputs(cls, rows=(1, 0, 3), seed=1, side="left", tail=5, grids=GRIDS, media=IMAGE):
        """A batch whose rows hold that many images, each of another size."""
        g = torch.Generator().manual_seed(seed)
        text = lambda n: torch.randint(1, 80, (n,), generator=g).tolist()  # noqa: E731
        ids, used = [], []
        for r, images in enumerate(rows):
            row = text(2 + r)
            for _ in range(images):
                grid = grids[(len(used) + seed) % len(grids)]
                used.append(grid)
                row += [START] + [media] * (grid[0] * grid[1] * grid[2] // 4)
                row += [END] + text(2) if tail else []
            ids.append(row + text(tail + (r % 2) if tail else 0))
        inputs = cls.padded(ids, side)
        if used:
            name = "pixel_values" if media == IMAGE else "pixel_values_videos"
            patches = sum(t * h * w for t, h, w in used)
            inputs[name] = torch.randn(patches, 96, generator=g)
            inputs["image_grid_thw" if media == IMAGE else "video_grid_thw"] = torch.tensor(used)
        return inputs

    @classmethod
    def padded(cls, ids, side="left"):
        n = max(map(len, ids))
        left = side == "left"
        padded = [[PAD] * (n - len(i)) + i if left else i + [PAD] * (n - len(i)) for i in ids]
        ones = [[0] * (n - len(i)) + [1] * len(i) if left else [1] * len(i) + [0] * (n - len(i)) for i in ids]
        ids = torch.tensor(padded)
        return {"input_ids": ids, "attention_mask": torch.tensor(ones), **cls.types(ids)}

    @staticmethod
    def text_models():
        return []  # Transformers hands them the three rows of positions, which they cannot take

    @classmethod
    def row(cls, inputs, r, start, images):
        alone = {k: inputs[k][r : r + 1] for k in ("input_ids", "attention_mask", "mm_token_type_ids")}
        if images:
            sizes = inputs["image_grid_thw"].prod(-1).tolist()
            first = sum(sizes[:start])
            alone["pixel_values"] = inputs["pixel_values"][first : first + sum(sizes[start : start + images])]
            alone["image_grid_thw"] = inputs["image_grid_thw"][start : start + images]
        return alone

    @classmethod
    def merge(cls, first, media, rows, images):
        if "pixel_values" not in media:
            return {k: first[k] for k in ("pixel_values", "image_grid_thw")}
        per = [first, media]
        parts = [x["pixel_values"].split(x["image_grid_thw"].prod(-1).tolist()) for x in per]
        pixels, grids, start = [], [], 0
        for r, n in enumerate(rows):
            pixels += [*parts[0][start : start + n], *parts[1][r * images : (r + 1) * images]]
            grids += [
                *first["image_grid_thw"][start : start + n],
                *media["image_grid_thw"][r * images : (r + 1) * images],
            ]
            start += n
        return {"pixel_values": torch.cat(pixels), "image_grid_thw": torch.stack(grids)}

    @classmethod
    def compact_positions(cls, inputs, full):
        text = (full["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        return text.expand(4, -1, -1)

    @classmethod
    def ending_in_an_image(cls):
        return cls.inputs((1, 2), tail=0)

    @staticmethod
    def next_position(full):
        rows = full["position_ids"]
        following = rows[-3:].amax(dim=(0, 2))[:, None] + 1
        return following.expand(len(rows), -1, -1)

    @staticmethod
    def kept(model):
        stats = vtp_stats(model)
        flags = []
        for n, keep in zip(stats.num_tokens, stats.keep_indices, strict=True):
            flag = torch.zeros(n, dtype=torch.bool)
            flag[keep] = True
            flags.append(flag)
        return torch.cat(flags)

    @classmethod
    def reference(cls, model, inputs, generating=False):
        """The full prompt with the kept features in place and the dropped placeholders masked as keys."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        features, flags, where = [], cls.kept(model), []
        for token, pixels, grid, encode in (
            ("image_token_id", "pixel_values", "image_grid_thw", model.model.get_image_features),
            ("video_token_id", "pixel_values_videos", "video_grid_thw", model.model.get_video_features),
        ):
            if pixels in inputs:
                rows = torch.cat(list(encode(inputs[pixels], inputs[grid], return_dict=True).pooler_output))
                features.append(rows)
                where.append(torch.nonzero(ids == cls.tokens[token]))
        features, where = torch.cat(features), torch.cat(where)
        assert torch.equal(features.isnan().any(-1), ~flags) and not features[flags].isnan().any()
        embeds = model.get_input_embeddings()(ids).clone()
        embeds[where[:, 0], where[:, 1]] = features.nan_to_num(7.0)
        grids = {k: inputs.get(k) for k in ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")}
        twin = cls.model()
        positions, _ = twin.model.get_rope_index(
            ids, mm_token_type_ids=cls.types(ids)["mm_token_type_ids"], attention_mask=mask, **grids
        )
        if generating:
            positions = torch.cat([(mask.cumsum(-1) - 1).clamp(min=0)[None], positions])
        alive = mask.clone()
        alive[where[~flags][:, 0], where[~flags][:, 1]] = 0
        return {"inputs_embeds": embeds, "attention_mask": alive, "position_ids": positions}


class Qwen2(Qwen):
    """Qwen2-VL: no windows, every block sees the whole image."""

    name = "qwen2_vl"
    classes = (Qwen2VLConfig, Qwen2VLForConditionalGeneration)
    vision = dict(
        depth=4,
        embed_dim=32,
        hidden_size=32,
        mlp_ratio=2,
        num_heads=2,
        patch_size=4,
        spatial_merge_size=2,
        temporal_patch_size=2,
    )


def masked_qwen_tower(visual, pixel_values, grid_thw, stages):
    """A full-length tower whose blocks behind a stage mask the dropped units as keys.

    `stages` maps a block to the raster indices of the units it left of each image. Returns the merger's
    output, [units, D], in raster order. Windows and rotary positions are worked out here from their
    definitions.
    """
    merge, units, patches = visual.spatial_merge_size, [], []
    for image, (t, h, w) in enumerate(grid_thw.tolist()):
        for f in range(t):
            for r in range(h // merge):
                for c in range(w // merge):
                    units.append((image, f, r, c))
                    for dr in range(merge):
                        for dc in range(merge):
                            patches.append((image, f, r * merge + dr, c * merge + dc))
    x = visual.patch_embed(pixel_values)
    heads = visual.blocks[0].attn.num_heads
    d = x.shape[1] // heads
    frequency = 1.0 / (10000.0 ** (torch.arange(0, d // 2, 2).float() / (d // 2)))
    angle = torch.tensor([[p[2] for p in patches], [p[3] for p in patches]]).float().T[..., None] * frequency
    angle = angle.flatten(1).repeat(1, 2)[:, None]  # [patches, 1, d]
    turn = lambda y: y * angle.cos() + torch.cat([-y[..., d // 2 :], y[..., : d // 2]], -1) * angle.sin()  # noqa: E731
    frame = torch.tensor([p[0] * 1000 + p[1] for p in patches])
    side = getattr(visual, "window_size", 0) // merge // visual.config.patch_size
    window = frame
    if side:
        window = torch.tensor(
            [
                ((p[0] * 1000 + p[1]) * 1000 + p[2] // merge // side) * 1000 + p[3] // merge // side
                for p in patches
            ]
        )
    alive = torch.ones(len(patches), dtype=torch.bool)
    for i, block in enumerate(visual.blocks):
        segment = frame if i in getattr(visual, "fullatt_block_indexes", range(99)) else window
        q, k, v = block.attn.qkv(block.norm1(x)).view(len(patches), 3, heads, d).unbind(1)
        logits = torch.einsum("qhd,khd->hqk", turn(q), turn(k)) * d**-0.5
        seen = (segment[:, None] == segment) & alive
        logits = logits.masked_fill(~seen, torch.finfo(x.dtype).min)
        mixed = torch.einsum("hqk,khd->qhd", logits.softmax(-1), v).flatten(1)
        x = x + block.attn.proj(mixed)
        x = x + block.mlp(block.norm2(x))
        if i in stages:
            left = torch.zeros(len(units), dtype=torch.bool)
            offsets = [
                0,
                *torch.tensor([t * h * w // merge**2 for t, h, w in grid_thw.tolist()]).cumsum(0).tolist(),
            ]
            for image, kept in enumerate(stages[i]):
                left[kept + offsets[image]] = True
            alive = left.repeat_interleave(merge**2)
    return visual.merger(x), left if stages else None
