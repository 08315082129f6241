"""One image as plain lists of Python floats, and the arithmetic that the references share."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, fsum, inf, sqrt


@dataclass
class Image:
    """The tokens of one image, without padding."""

    states: list  # [N][D]
    content: list  # [N][M·D]
    num_keep: int
    grid: tuple
    share: float
    min_keep: int
    max_keep: int | None
    remaining: int
    target: int
    pooled: bool
    layer: int
    place: list  # [N]
    order: list | None  # [N]
    sizes: list  # [N]
    prefix: int
    patches: int
    query: list | None  # [H][P + N·M][d]
    key: list | None
    value: list | None
    next_query: list | None
    next_key: list | None
    seen: dict  # [N] by layer
    text: list | None  # [T][D'] without padding
    joint: list | None  # [N][D'] content in the space of the text
    at_output: bool
    groups: list | None  # [N]
    group_weights: list | None  # [N]

    @cached_property
    def n(self):
        return len(self.states)

    @cached_property
    def cos(self):
        """Cosines of all tokens with all, [N][N]."""
        return cosines(self.states)

    @cached_property
    def projected_cos(self):
        """The same of tokens as the language model reads them, where it reads them next."""
        return self.cos if self.joint is None or not self.at_output else cosines(self.joint)

    @cached_property
    def key_cos(self):
        """The same of the keys, mean over the heads and the patches of a token."""
        per_patch = [
            mean_vector([keys[i] for keys in self.key]) for i in range(self.prefix, len(self.key[0]))
        ]
        m = self.patches
        return cosines([mean_vector(per_patch[i * m : (i + 1) * m]) for i in range(self.n)])

    @cached_property
    def attention(self):
        """softmax(QKᵀ/√d) of all tokens with all, prefix included, [H][P + N·M][P + N·M]."""
        return attention(self)

    @cached_property
    def next_as_one_head(self):
        """This image with the next layer's queries and keys, all heads side by side."""
        query, key = (self.next_query, self.next_key) if self.next_query else (self.query, self.key)
        return replace(self, query=[side_by_side(query)], key=[side_by_side(key)])

    def having(self, **changes):
        """This image with other fields; what was worked out from its states stays."""
        vars(self).update(changes)
        return self


def image(tokens, b):
    """Row `b` of a VisionTokens."""
    n = tokens.hidden_states.shape[1]
    rows = [i for i in range(n) if tokens.valid is None or tokens.valid[b, i]]
    assert rows == list(range(len(rows)))  # padding comes last
    n, prefix = len(rows), tokens.num_prefix_tokens
    m = 1 if tokens.patches is None else tokens.patches.shape[2]

    def plain(x, length):
        return None if x is None else x[b, :length].double().tolist()

    def heads(x):
        return None if x is None else x[b, :, : prefix + n * m].double().tolist()

    content = tokens.hidden_states if tokens.patches is None else tokens.patches.flatten(2)
    text = None
    if tokens.text is not None:
        valid = [tokens.text_valid is None or tokens.text_valid[b, t] for t in range(tokens.text.shape[1])]
        text = [row for row, is_text in zip(tokens.text[b].double().tolist(), valid, strict=True) if is_text]
    return Image(
        states=plain(tokens.hidden_states, n),
        content=plain(content, n),
        **{name: getattr(tokens, name) for name in "num_keep grid share min_keep max_keep".split()},
        **{name: getattr(tokens, name) for name in "remaining target layer pooled at_output".split()},
        place=list(range(n)) if tokens.positions is None else tokens.positions[b, :n].tolist(),
        order=None if tokens.order is None else tokens.order[b, :n].tolist(),
        sizes=[1.0] * n if tokens.sizes is None else plain(tokens.sizes, n),
        prefix=prefix,
        patches=m,
        query=heads(tokens.full_query),
        key=heads(tokens.full_key),
        value=heads(tokens.full_value),
        next_query=heads(tokens.next_query),
        next_key=heads(tokens.next_key),
        seen={layer: plain(x, n) for layer, x in tokens.seen.items()},
        text=text,
        joint=None if tokens.project is None else plain(tokens.project(content), n),
        groups=None if tokens.groups is None else tokens.groups[b, :n].tolist(),
        group_weights=plain(tokens.group_weights, n),
    )


def side_by_side(heads):
    """[H][L][d] as [L][H·d]."""
    return [sum((head[i] for head in heads), []) for i in range(len(heads[0]))]


def dot(a, b):
    return fsum(x * y for x, y in zip(a, b, strict=True))


def norm(a):
    return sqrt(dot(a, a))


def mean(values):
    values = list(values)
    return fsum(values) / len(values)


def mean_vector(rows, weights=None):
    weights = [1.0] * len(rows) if weights is None else weights
    total = fsum(weights)
    return [
        fsum(w * x for w, x in zip(weights, column, strict=True)) / total
        for column in zip(*rows, strict=True)
    ]


def units(rows):
    """Each row at length one; zeros stay zeros."""
    return [[x / max(norm(row), 1e-12) for x in row] for row in rows]


def cosines(rows, columns=None):
    """Cosine of each row with each column, [N][N]."""
    rows = units(rows)
    columns = rows if columns is None else units(columns)
    return [[dot(a, b) for b in columns] for a in rows]


def softmax(logits):
    highest = max(logits)
    weights = [exp(x - highest) for x in logits]
    return [w / fsum(weights) for w in weights]


def ranked(scores, among=None):
    """Indices from the highest score down, ties to the lower index."""
    return sorted(range(len(scores)) if among is None else among, key=lambda i: (-scores[i], i))


def first_best(gains, among):
    """The index of the largest gain, the lowest of several."""
    return ranked(gains, among)[0]


def bounded(count, im):
    """A count that follows the image, within its bounds."""
    count = max(count, im.min_keep, 1)
    return min(count, im.n, im.n if im.max_keep is None else im.max_keep)


def attention(im):
    """softmax(QKᵀ/√d) of all tokens with all, prefix included, [H][P + N·M][P + N·M]."""
    length = len(im.query[0])
    per_frame = im.grid[1] * im.grid[2]
    frame = [-1] * im.prefix + [p // per_frame for p in im.place for _ in range(im.patches)]

    def row(query, keys, i):
        sees = [im.grid[0] == 1 or frame[i] == frame[j] for j in range(length)]
        logits = [dot(query, k) / sqrt(len(k)) if see else -inf for k, see in zip(keys, sees, strict=True)]
        return softmax(logits)

    return [
        [row(q, keys, i) for i, q in enumerate(queries)]
        for queries, keys in zip(im.query, im.key, strict=True)
    ]


def by_token(im, values):
    """[P + N·M] per patch to [N]: the mean over the patches of a token; the prefix is left out."""
    own = values[im.prefix :]
    return [mean(own[i * im.patches : (i + 1) * im.patches]) for i in range(im.n)]


def received(im):
    """Attention each token receives from all, summed, mean over the heads, [N]."""
    table = im.attention
    columns = [
        mean(fsum(rows[i][j] for i in range(len(rows))) for rows in table) for j in range(len(table[0]))
    ]
    return by_token(im, columns)


def salience(im):
    """Attention of [CLS], mean over the heads; without one, received attention, mean over the queries."""
    table = im.attention
    if im.prefix:
        return by_token(im, [mean(column) for column in zip(*(rows[0] for rows in table), strict=True)])
    return [r * im.patches / len(table[0]) for r in received(im)]
