"""Oracles for families whose projector makes one row of a cell of patches.

They use nothing of the package but its statistics: the unpruned tower sees no key of a dropped patch, and the
unpruned model puts its features into the whole prompt itself, where dropped placeholders are masked.
"""

import inspect
from contextlib import ExitStack, contextmanager

import torch

from hf_vtp import vtp, vtp_stats
from hf_vtp.families.placeholder import merging
from hf_vtp.families.table import FAMILIES, tower_row
from hf_vtp.towers.joined import JoinedTower
from hf_vtp.towers.rows import find

LOUD = 7.0  # in rows that nobody may read


def cell_of(model):
    """Side of a cell of the model's projector."""
    cell = FAMILIES[model.config.model_type].cell
    return cell if isinstance(cell, int) else cell(model.config)


def tower_of(model):
    """The model's vision tower and its encoder layers."""
    tower = find(merging(model), FAMILIES[model.config.model_type].tower)
    return tower, find(tower, tower_row(tower).layers)


@contextmanager
def encoder(model, wrap):
    """`get_image_features` of a model wrapped inside a `with` block."""
    inner = merging(model)
    original = inner.get_image_features
    owners = {id(m): m for m in (inner, model.base_model)}.values()
    for owner in owners:
        owner.get_image_features = wrap(original)
        owner.get_image_features.__signature__ = inspect.signature(original)
    try:
        yield
    finally:
        for owner in owners:
            del owner.get_image_features


def rows_of(output):
    """What an encoder returned, flat."""
    features = output.pooler_output
    if isinstance(features, torch.Tensor):
        return features.flatten(0, -2)
    return torch.cat([x.flatten(0, -2) for x in features])


def with_rows(output, rows):
    """An encoder's output with other rows in the same form, or fewer in one piece."""
    features, start = output.pooler_output, 0
    if len(rows) < len(rows_of(output)):
        output.pooler_output = rows[None] if isinstance(features, torch.Tensor) else [rows]
        return output
    if isinstance(features, torch.Tensor):
        output.pooler_output = rows.view_as(features)
        return output
    made = []
    for x in features:
        count = x.flatten(0, -2).shape[0]
        made.append(rows[start : start + count].view_as(x))
        start += count
    output.pooler_output = type(features)(made)
    return output


@contextmanager
def recorded(model):
    """The outputs of the encoder inside a `with` block."""
    seen = []

    def wrap(original):
        def call(*args, **kwargs):
            seen.append(original(*args, **kwargs))
            return seen[-1]

        return call

    with encoder(model, wrap):
        yield seen


@contextmanager
def answering(model, rows, counts, total):
    """An encoder that gives these rows, `counts` of them in each prompt, in place of `total` of its own.

    It gives them for every beam where it is asked for that.
    """

    def wrap(original):
        def call(*args, **kwargs):
            output = original(*args, **kwargs)
            beams = len(rows_of(output)) // total  # older releases encode the images of every beam
            return with_rows(output, torch.cat([x.repeat(beams, 1) for x in rows.split(counts)]))

        return call

    with encoder(model, wrap):
        yield


def dead_patches(stats, layer, grids, cell):
    """By image, which patches in raster order left after a layer."""
    stage = next(stage for stage in stats.stages if stage.layer == layer)
    dead = []
    for keep, (rows, columns) in zip(stage.keep_indices, grids, strict=True):
        cells = torch.ones(rows // cell * (columns // cell), dtype=torch.bool)
        cells[keep] = False
        cells = cells.view(rows // cell, columns // cell)
        dead.append(cells.repeat_interleave(cell, 0).repeat_interleave(cell, 1).flatten())
    return dead


@contextmanager
def blind(model, stats, place):
    """The tower's layers after each stage see no dropped patch; `place` makes of dead patches dead keys."""
    original, dead = torch.nn.functional.scaled_dot_product_attention, []

    def attention(query, key, value, attn_mask=None, **kwargs):
        if dead and dead[-1] is not None:
            keys = ~dead[-1][:, None, None, : key.shape[2]]
            if attn_mask is None:
                attn_mask = keys.expand(-1, -1, query.shape[2], -1)
            elif attn_mask.dtype == torch.bool:
                attn_mask = attn_mask & keys
            else:
                attn_mask = attn_mask.masked_fill(~keys, torch.finfo(attn_mask.dtype).min)
        return original(query, key, value, attn_mask=attn_mask, **kwargs)

    _, layers = tower_of(model)
    last = None
    with ExitStack() as stack:
        for i, layer in enumerate(layers):
            stack.callback(layer.register_forward_pre_hook(lambda *_, last=last: dead.append(last)).remove)
            stack.callback(layer.register_forward_hook(lambda *_: dead.clear()).remove)
            if any(stage.layer == i for stage in stats.stages):
                last = place(i)
        torch.nn.functional.scaled_dot_product_attention = attention
        try:
            yield
        finally:
            torch.nn.functional.scaled_dot_product_attention = original


class Pruned:
    """One call of a pruned model and what the oracles need of it."""

    def __init__(self, model, inputs, grids, **options):
        self.model, self.inputs, self.grids = model, inputs, grids
        with vtp(model, **options), recorded(model) as outputs, torch.no_grad():
            self.output = model(**inputs)
            self.stats = vtp_stats(model)
        self.rows = rows_of(outputs[0])
        self.kept = ~self.rows.isnan().any(dim=-1)
        self.options = options

    def dead_keys(self, layer):
        """Dead keys of a batch of images, [B, P + N]."""
        tower, _ = tower_of(self.model)
        prefix = tower_row(tower).num_prefix_tokens(tower)
        dead = dead_patches(self.stats, layer, self.grids, cell_of(self.model))
        if tower_row(tower).pattern is JoinedTower:  # all images in one row
            return torch.cat(dead)[None]
        longest = max(map(len, dead))
        return torch.stack([torch.nn.functional.pad(x, (prefix, longest - len(x))) for x in dead])

    def full_rows(self, dead_keys=None):
        """What the unpruned projector makes of a tower that sees no dropped patch, [T, D]."""
        with recorded(self.model) as outputs, torch.no_grad():
            with blind(self.model, self.stats, dead_keys or self.dead_keys):
                self.model(**self.inputs)
        return rows_of(outputs[0])

    def alive(self):
        """The prompt's mask without dropped placeholders, [B, n]."""
        where = self.inputs["input_ids"] == self.model.config.image_token_id
        mask = self.inputs["attention_mask"].bool()
        return mask & ~where.masked_scatter(where, ~self.kept)

    @property
    def steps_over_columns(self):
        """Whether layers would step over masked columns, so that a masked prompt is no reference."""
        kinds = getattr(self.model.config.get_text_config(), "layer_types", None) or []
        return not {"full_attention", "sliding_attention"}.issuperset(kinds)

    def alone(self, rows, r, call):
        """The unpruned model's answer to the columns of one row that stay."""
        alive, ids = self.alive()[r], self.inputs["input_ids"]
        where = ids == self.model.config.image_token_id
        owner = torch.nonzero(where)[:, 0]
        own = rows[self.kept & (owner == r)]
        text = dict(input_ids=ids[r, alive][None], attention_mask=torch.ones(1, int(alive.sum()), dtype=int))
        with answering(self.model, own, [len(own)], len(rows)), torch.no_grad():
            return call(**{**self.inputs, **text})

    def masked(self, rows, call):
        """The unpruned model's answer to the whole prompt with these rows, dropped placeholders masked."""
        rows = rows.masked_fill(~self.kept[:, None], LOUD)
        counts = (self.inputs["input_ids"] == self.model.config.image_token_id).sum(dim=1).tolist()
        with answering(self.model, rows, counts, len(rows)), torch.no_grad():
            return call(**{**self.inputs, "attention_mask": self.alive().long()})
