"""Slow and plain references that share no code with hf_vtp."""

import torch


def masked_clip(tower, pixel_values, stages):
    """A full-length CLIP encoder whose layers behind a stage mask the dropped tokens as keys.

    `stages` maps a layer to the raster indices it left of each image. Returns every layer's output, [B, 1 +
    N, D].
    """
    x = tower.pre_layrnorm(tower.embeddings(pixel_values))
    mask, states = None, []
    for i, layer in enumerate(tower.encoder.layers):
        x = layer(x, mask)
        states.append(x)
        if i in stages:
            mask = torch.full((x.shape[0], 1, 1, x.shape[1]), torch.finfo(x.dtype).min)
            mask[..., 0] = 0
            for b, kept in enumerate(stages[i]):
                mask[b, :, :, kept + 1] = 0
            mask = mask.expand(-1, -1, x.shape[1], -1)
    return states


def replicated_clip(tower, pixel_values, stages, scores=None):
    """A full-length CLIP encoder in which, behind a stage, every member of a group holds the group's mean.

    `stages` maps a layer to the group of every token that entered it, `scores` to the score of each: then the
    mean is weighted by their roots, and is as long as its members are in the mean. No mask, no bias.
    """
    x = tower.pre_layrnorm(tower.embeddings(pixel_values))
    member = [torch.arange(x.shape[1] - 1) for _ in x]  # of each original token, the token that holds it now
    for i, layer in enumerate(tower.encoder.layers):
        x = layer(x, None)
        if i in stages:
            x = x.clone()
            for b in range(x.shape[0]):
                weight = torch.ones(len(member[b])) if scores is None else roots(scores[i][b])[member[b]]
                member[b] = stages[i][b][member[b]]
                for group in member[b].unique():
                    rows = torch.nonzero(member[b] == group)[:, 0]
                    w, own = weight[rows, None] / weight[rows].sum(), x[b, rows + 1]
                    mean = (w * own).sum(dim=0)
                    if scores is not None:
                        mean = mean / mean.norm() * (w * own.norm(dim=1, keepdim=True)).sum()
                    x[b, rows + 1] = mean
    return x, member


def roots(scores):
    """What the default weighs a token by, its size aside: the root of its score, none far below the mean."""
    scores = scores.clamp(min=0)
    return scores.clamp(min=scores.mean() / 1000).sqrt()
