"""Which hidden states of its tower a language model reads, where a config or a call says so."""

from __future__ import annotations

NAMES = ("vision_feature_layer", "vision_feature_layers")  # the second is older


def states_read(layer: int | list[int], num_layers: int) -> list[int]:
    """Which of the tower's `num_layers` + 1 hidden states a vision_feature_layer names, counted from 0."""
    layers = [layer] if isinstance(layer, int) else layer
    if any(not -num_layers <= i <= num_layers or i == 0 for i in layers):
        raise ValueError(
            f"{NAMES[0]}={layer} reads no layer's output of a tower with {num_layers}; "
            f"choose from 1 to {num_layers} or -{num_layers} to -1"
        )
    return [i % (num_layers + 1) for i in layers]


def layers_read(config: object) -> list[int]:
    """What a model's config says of them; [] where it says nothing: then its last_hidden_state is read."""
    layer = next((x for name in NAMES if (x := getattr(config, name, None)) is not None), [])
    return [layer] if isinstance(layer, int) else list(layer)


def last_layer_read(
    adapter, config: object, num_layers: int, arguments: dict | None = None
) -> tuple[int, str]:
    """How many layers feed what the language model reads, and that in words.

    State i of a tower is the output of its layer i - 1. With the arguments of a call, raises ValueError where
    the call reads a state from before a stage.
    """
    said = [(arguments or {}).get(name) for name in NAMES]
    said += [getattr(config, name, None) for name in NAMES]  # which may have changed since apply_vtp
    layer = next((layer for layer in said if layer is not None), None)
    if layer is None:
        return num_layers, "the encoder"
    depth = min(states_read(layer, num_layers))
    if arguments is not None:
        tower, own = adapter.tower, adapter.config
        if "text" in tower.needs and isinstance(layer, list) and len(layer) > 1:
            raise NotImplementedError(
                f"method {own.method!r} compares tokens of one layer with the prompt, not those of "
                f"{NAMES[0]}={layer}; choose another method"
            )
        if max(tower.stages) >= depth:
            raise ValueError(
                f"{NAMES[0]}={layer} reads a state from before the stage at layer {max(tower.stages)}; "
                f"apply_vtp with a layer from 0 to {depth - 1} for it"
            )
    return depth, f"the last layer that feeds what the language model reads ({NAMES[0]}={layer})"
