"""VisionTokens for every method: random ones of each layout, and degenerate ones whose ties are exact."""

from dataclasses import fields, replace

import torch

from hf_vtp import VisionTokens

HEADS, CHANNELS, WIDTH, SPACE, WORDS = 2, 4, 16, 8, 5
BY_PATCH = ("full_query", "full_key", "full_value", "next_query", "next_key")


def build(make, grid, n, seed=0, b=2, prefix=0, patches=1, **more):
    """Tokens with every field a method may need, each made by make(shape, generator)."""
    g = torch.Generator().manual_seed(seed)
    units = make((b, n, patches, WIDTH), g)
    states = [make((b, HEADS, prefix + n * patches, CHANNELS), g) for _ in range(3)]
    later = [make((b, HEADS, prefix + n * patches, CHANNELS), g) for _ in range(2 if b < 3 else 0)]
    into = torch.randn(patches * WIDTH, SPACE, generator=g)
    text = torch.randn(b, WORDS, SPACE, generator=g)
    text_valid = torch.arange(WORDS) < torch.tensor([[WORDS], [2], [0]])[:b]
    return VisionTokens(
        hidden_states=units.mean(dim=2),
        patches=units if patches > 1 else None,
        grid=grid,
        num_keep=n,
        num_prefix_tokens=prefix,
        **dict(zip(("full_query", "full_key", "full_value"), states, strict=True)),
        **dict(zip(("next_query", "next_key"), later, strict=False)),  # of three images none, as at the end
        layer=3,
        seen={layer: torch.rand(b, n, generator=g) for layer in (1, 2, 3, 5)},
        text=text,
        text_valid=text_valid,
        project=lambda content: content @ into.to(content.dtype),
        **more,
    )


def normal(shape, g):
    return torch.randn(shape, generator=g)


def some_have_left(n, rows, columns, b=2, frames=1, seed=3):
    """Where tokens still are, in which order a method has them, and how many each stands for."""
    g = torch.Generator().manual_seed(seed)
    everywhere = frames * rows * columns
    positions = [torch.randperm(everywhere, generator=g)[:n].sort().values for _ in range(b)]
    order = torch.stack([torch.randperm(n, generator=g) for _ in range(b)])
    return {
        "positions": torch.stack(positions),
        "order": order,
        "sizes": torch.randint(1, 4, (b, n), generator=g).float(),
    }


RANDOM = {
    "CLS": lambda: build(normal, (1, 4, 5), 20, prefix=1, b=3),
    "no CLS": lambda: build(normal, (1, 5, 4), 20, seed=1),
    "merge units": lambda: build(normal, (1, 2, 5), 10, patches=4, seed=2),
    "frames": lambda: build(normal, (3, 2, 3), 18, seed=3),
    "frames of units": lambda: build(normal, (2, 2, 2), 8, patches=4, seed=4),
    "some have left": lambda: build(normal, (1, 6, 7), 17, prefix=1, seed=5, **some_have_left(17, 6, 7)),
    "left frames": lambda: build(normal, (3, 3, 3), 16, seed=6, **some_have_left(16, 3, 3, frames=3)),
}


def constant(value):
    return lambda shape, g: torch.full(shape, float(value))


def outlier(shape, g):
    """Ones, and the last token the opposite and larger."""
    x = torch.ones(shape)
    x[:, -1] = -4.0
    if shape[-1] == CHANNELS:  # queries, keys and values, [B, H, tokens, d]
        x = torch.ones(shape)
        x[:, :, -1] = -4.0
    return x


def signs(shape, g):
    """Plus and minus one, of heads only in the first: lengths are powers of two and cosines exact."""
    x = torch.randint(0, 2, shape, generator=g) * 2.0 - 1.0
    if shape[-1] == CHANNELS:
        x[:, 1:] = 0
    return x


DEGENERATE = {
    "signs": lambda: build(signs, (1, 4, 4), 16, seed=11),
    "all equal": lambda: build(constant(1), (1, 3, 5), 15, prefix=1),
    "all equal, no CLS": lambda: build(constant(1), (1, 4, 4), 16),
    "all equal units": lambda: build(constant(1), (1, 2, 4), 8, patches=4),
    "one outlier": lambda: build(outlier, (1, 3, 5), 15, prefix=1),
    "zeros": lambda: build(constant(0), (1, 2, 4), 8),
    "one token": lambda: build(normal, (1, 1, 1), 1, prefix=1),
    "one unit": lambda: build(normal, (1, 1, 1), 1, patches=4),
}


def pad(tokens, counts):
    """The first `counts[b]` tokens of each image; the others become padding."""
    valid = torch.arange(tokens.shape[1]) < torch.tensor(counts)[:, None]
    wide = valid.repeat_interleave(tokens.num_patches, dim=1)
    wide = torch.nn.functional.pad(wide, (tokens.num_prefix_tokens, 0), value=True)
    changes = {name: getattr(tokens, name) for name in ("hidden_states", "patches", "positions", "sizes")}
    fill = {"positions": 0 if tokens.num_prefix_tokens == 0 else -1, "sizes": 0}
    for name, x in changes.items():
        if x is not None:
            where = valid.view(*valid.shape, *[1] * (x.dim() - 2))
            changes[name] = x.where(where, fill.get(name, 9))
    for name in BY_PATCH:
        x = getattr(tokens, name)
        changes[name] = None if x is None else x.where(wide[:, None, :, None], 9)
    return replace(tokens, valid=valid, **changes)


def second_frame_only():
    """The longer image has tokens in both frames, the shorter in the second: its padding is in none."""
    positions = torch.tensor([[0, 2, 3, 5, 6, 7, 9, 11], [6, 7, 8, 9, 11, 0, 0, 0]])
    return pad(build(normal, (2, 2, 3), 8, seed=8, positions=positions, sizes=torch.ones(2, 8)), [8, 5])


PADDED = {
    "padded": lambda: pad(
        build(normal, (1, 6, 7), 18, prefix=1, seed=7, b=3, **some_have_left(18, 6, 7, b=3)), [18, 11, 1]
    ),
    "padded units": lambda: pad(
        build(normal, (1, 5, 5), 10, patches=4, seed=9, **some_have_left(10, 5, 5)), [10, 6]
    ),
    "padded frames": second_frame_only,
    "padded, all there": lambda: pad(build(normal, (1, 4, 5), 20, prefix=1, seed=10), [20, 9]),
}


def converted(tokens, dtype, scale=1.0):
    """The same in another type, as a model in half precision has them."""
    names = ["hidden_states", "patches", *BY_PATCH, "text"]
    states = {name: getattr(tokens, name) for name in names}
    states = {name: None if x is None else (x * scale).to(dtype) for name, x in states.items()}
    return replace(tokens, **states)


def one(tokens, b):
    """Image `b` alone, without its padding."""
    n = tokens.shape[1] if tokens.valid is None else int(tokens.valid[b].sum())
    length = tokens.num_prefix_tokens + n * tokens.num_patches
    cut = {f.name: getattr(tokens, f.name) for f in fields(tokens)}
    cut = {name: x[b : b + 1] for name, x in cut.items() if isinstance(x, torch.Tensor)}
    for name, x in cut.items():
        cut[name] = x if name.startswith("text") else x[:, :n]
        if name in BY_PATCH:
            cut[name] = x[:, :, :length]
    seen = {layer: x[b : b + 1, :n] for layer, x in tokens.seen.items()}
    return replace(tokens, **{**cut, "valid": None, "seen": seen})
