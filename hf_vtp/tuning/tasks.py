"""The outputs that are compared with the unpruned model's: image embeddings, or greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from .bounds import Bounds, mean_bounds, share_bounds


class Embeddings:
    """The cosine of an image's embedding, or a classifier's logits, with that of the unpruned model."""

    quality: ClassVar[str] = "cosine"
    bounds: ClassVar[Bounds] = staticmethod(mean_bounds)

    def __init__(self, model: nn.Module):
        self.model = model

    def run(self, batch: dict[str, Tensor]) -> Sequence:
        """Embeddings [B, D] in float32 on the CPU, of the model as it is now."""
        from ..tools.towers import embedding  # here: `import hf_vtp.tuning` imports none of the tools

        return embedding(self.model, batch).float().cpu()

    first = run  # FLOPs are counted of this

    def compare(self, pruned: Tensor, unpruned: Tensor) -> list[float]:
        return cosine_similarity(pruned, unpruned, dim=-1).tolist()


class Answers:
    """Whether the greedy answer to a prompt equals the unpruned model's, token by token: 1 or 0."""

    quality: ClassVar[str] = "agreement"
    bounds: ClassVar[Bounds] = staticmethod(share_bounds)

    def __init__(self, model: nn.Module, max_new_tokens: int):
        self.model, self.max_new_tokens = model, max_new_tokens
        config = model.generation_config
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        self.pad = config.pad_token_id
        if self.pad is None:
            self.pad = next((end for end in ends if end is not None), 0)
        self.silent = {*ends, self.pad}

    def run(self, batch: dict[str, Tensor], new_tokens: int | None = None) -> Sequence:
        """The new tokens of every row, without its end and padding."""
        from ..tools import prompts  # here: `import hf_vtp.tuning` imports none of the tools

        kwargs = {"max_new_tokens": new_tokens or self.max_new_tokens, "do_sample": False, "num_beams": 1}
        output = self.model.generate(**batch, **kwargs, pad_token_id=self.pad)
        rows = prompts.new_tokens(self.model, output, batch).tolist()
        return [[token for token in row if token not in self.silent] for row in rows]

    def first(self, batch: dict[str, Tensor]) -> Sequence:
        """One token: decoding costs about the same with and without pruning."""
        return self.run(batch, 1)

    def compare(self, pruned: Sequence, unpruned: Sequence) -> list[float]:
        return [float(one == other) for one, other in zip(pruned, unpruned, strict=True)]
