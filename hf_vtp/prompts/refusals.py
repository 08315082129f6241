"""Calls of a language-model family that pruning cannot get right, refused before any compute."""

from __future__ import annotations

from torch import Tensor, nn

from .callbacks import Generate, setting

PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")  # of several prompts in one row
COUNTS_COLUMNS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}


RUNNING = ("conv", "hybrid", "linear", "mamba", "recurrent")  # in names of layers with a running state


def steps_over_masks(config: object) -> bool:
    """Whether a language model has layers whose state goes on over columns that are masked."""
    kinds = getattr(config, "layer_types", None) or ()
    return any(part in kind for kind in kinds for part in RUNNING)


def refuse_encoded(arguments: dict) -> None:
    """Images whose features the caller made; nothing remains to be pruned."""
    if arguments.get("mm_encoder_outputs"):
        raise NotImplementedError(
            "images that are encoded already cannot be pruned; pass their pixel values instead"
        )


def refuse_masks(mask: object) -> None:
    """Masks over pairs of columns, or one per kind of layer."""
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
        raise NotImplementedError("pruning needs a 2-D attention_mask (1 = token, 0 = padding), or none")


def refuse_packed(arguments: dict, attention: str, cache: object) -> None:
    """Several prompts in one row, told apart by positions that start again or by cumulative lengths.

    Transformers tells them apart where there is no mask (FlashAttention: also with one). `attention` is the
    language model's implementation, `cache` the call's.
    """
    given = [name for name in PACKED if arguments.get(name) is not None]
    positions, mask = arguments.get("position_ids"), arguments.get("attention_mask")
    if not given and positions is not None and cache is None and (mask is None or "flash" in attention):
        rows = positions if positions.dim() == 2 else positions[0]  # m-RoPE: of text, or of time
        steps = rows[:, 1:] - rows[:, :-1]
        # rows of m-RoPE stand still within an image, and leap after it
        restarts = steps < 0 if positions.dim() == 3 and len(positions) == 3 else steps != 1
        if mask is not None and mask.shape == rows.shape:
            restarts = restarts & (mask[:, 1:] != 0) & (mask[:, :-1] != 0)
        given = ["position_ids that do not rise by one"] if bool(restarts.any()) else []
    if given:
        raise NotImplementedError(
            f"several prompts packed into one row ({given[0]}) cannot be pruned; pass one prompt a row with "
            "an attention_mask"
        )


def refuse_blocks(arguments: dict, cached: int) -> None:
    """An image after what a cache holds, where token types say which columns see both ways.

    Transformers lays those types out from the first column of the cache on.
    """
    if cached and arguments.get("token_type_ids") is not None:
        raise NotImplementedError(
            "an image after what a cache holds cannot be pruned where token_type_ids are given; pass the "
            "whole conversation without a cache"
        )


def refuse_without_types(model: nn.Module, arguments: dict) -> None:
    """A missing token_type_ids where attention is causal only if they, or padding, say so."""
    both_ways = getattr(model.config.get_text_config(), "use_bidirectional_attention", None)
    if both_ways and arguments.get("token_type_ids") is None:
        raise ValueError(
            "token_type_ids are missing, without which padding decides what the language model sees; give "
            "those that the processor returns (0 for the image and the prompt, 1 for a suffix)"
        )


def smallest_window(model: nn.Module) -> int | None:
    """Columns that the language model's narrowest layers attend to, None if all layers attend to all."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    names = [name for kind, name in COUNTS_COLUMNS.items() if not kinds or kind in kinds]
    return min((size for name in names if (size := getattr(config, name, None))), default=None)


def refuse_beyond_window(columns: int, window: int | None) -> None:
    """A prompt longer than what a layer attends to, since the layer would count the condensed columns."""
    if window is not None and columns > window:
        raise NotImplementedError(
            f"the language model has layers that attend to {window} columns only, and this prompt with what "
            f"is generated has up to {columns}; pruning takes at most {window} there"
        )


def refuse_assistants(model: nn.Module, kwargs: dict) -> None:
    """Assisted decoding by a pruned model, whose prompt is shortened already when its turn comes."""
    assistant = kwargs.get("assistant_model")
    parts = list(assistant.modules()) if isinstance(assistant, nn.Module) else []  # of wrappers, too
    if setting(model, kwargs, "assistant_early_exit") is not None or any(part is model for part in parts):
        raise NotImplementedError(
            "a pruned model cannot be its own assistant (assistant_model, assistant_early_exit); pass "
            "another model, or prompt_lookup_num_tokens"
        )
    if any(isinstance(vars(part).get("generate"), Generate) for part in parts):
        raise NotImplementedError("the assistant_model is pruned; call remove_vtp(assistant_model) first")


def refuse_assisting(kwargs: dict) -> None:
    """The other side: this pruned model was given to an unpruned one as its assistant."""
    if getattr(kwargs.get("generation_config"), "is_assistant", False):
        raise NotImplementedError(
            "the assistant_model is pruned and sees images, which it cannot do within the generate of "
            "another model; call remove_vtp(assistant_model), and prune the model that it assists"
        )


def refuse_prompt_learning(model: nn.Module) -> None:
    """PEFT's prompt and prefix tuning put columns of their own before the prompt inside `generate`."""
    owner = getattr(vars(model).get("prepare_inputs_for_generation"), "__self__", None)
    if getattr(getattr(owner, "active_peft_config", None), "is_prompt_learning", False):
        raise NotImplementedError(
            "generate of a pruned model does not take PEFT's prompt or prefix tuning, whose virtual tokens "
            "drop the positions of the prompt; call remove_vtp(model), or use LoRA"
        )


def refuse_padding_within(model: nn.Module, mask: Tensor, past: int) -> None:
    """Rows of different lengths after a filled cache, where layers would step over the padding between.

    `mask` [B, m] is of the condensed columns after the first `past`.
    """
    if past and steps_over_masks(model.config.get_text_config()) and not bool(mask.all()):
        raise NotImplementedError(
            "the language model has layers with a running state, which padding between two turns would "
            "change, and rows of this turn keep different numbers of tokens; pass rows one by one"
        )
