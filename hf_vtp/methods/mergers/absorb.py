"""Every token that leaves joins the kept token it resembles most."""

from torch import Tensor

from ...pruning.tokens import VisionTokens, take
from . import register_merger
from .lloyd import lloyd


@register_merger(
    "absorb", weighs=True, averages=True, paper="this project; weights after ToMe (arXiv:2210.09461)"
)
def absorb(tokens: VisionTokens, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A kept token becomes the mean of all tokens that resemble it most, and carries their number.

    Similarity is the cosine of the hidden states; a token that stands for several counts as several. Later
    layers add log(size) to the attention logits of each key where the family's attention takes a bias.
    Returns [B, K, M·D], the group of every token [B, N], and the groups' sizes [B, K] in float32.
    """
    return lloyd(tokens, keep, take(tokens.content, keep), rounds=1)
