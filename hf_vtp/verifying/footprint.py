"""Attributes, hooks and configs of a model at one moment, to be compared with later ones or put back."""

from __future__ import annotations

from torch import nn


class Footprint:
    """What of a model is not its weights."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.attributes = {name: (module, dict(vars(module))) for name, module in model.named_modules()}
        self.hooks = {name: _hooks(module) for name, module in model.named_modules()}
        configs = {id(c): c for m in model.modules() if hasattr(c := vars(m).get("config"), "__dict__")}
        self.configs = [(config, dict(vars(config))) for config in configs.values()]
        self.keys = list(model.state_dict())

    def differences(self) -> list[str]:
        """What is different now, one phrase each."""
        found = []
        for name, module in self.model.named_modules():
            where = f" of {name}" if name else ""
            if name not in self.attributes:
                found.append(f"a new module {name}")
                continue
            then, now = set(self.attributes[name][1]), set(vars(module))
            found += [f"attribute {key}{where} is new" for key in sorted(now - then)]
            found += [f"attribute {key}{where} is gone" for key in sorted(then - now)]
            for kind, hooks in _hooks(module).items():
                before = self.hooks[name].get(kind, {})
                if list(before.values()) != list(hooks.values()):
                    found.append(
                        f"{len(before)} {kind.strip('_').replace('_', ' ')}{where} became {len(hooks)}"
                    )
        for config, values in self.configs:
            if vars(config) != values:
                found.append(f"a {type(config).__name__} changed")
        if list(self.model.state_dict()) != self.keys:
            found.append("the keys of the state_dict changed")
        return found

    def restore(self) -> None:
        """Put everything back as it was."""
        for name, (module, attributes) in self.attributes.items():
            vars(module).clear()
            vars(module).update(attributes)
            for kind, hooks in self.hooks[name].items():
                vars(module)[kind].clear()
                vars(module)[kind].update(hooks)
        for config, values in self.configs:
            vars(config).clear()
            vars(config).update(values)


def _hooks(module: nn.Module) -> dict[str, dict]:
    """The hooks of a module by the names of the dicts that hold them."""
    return {k: dict(v) for k, v in vars(module).items() if "hook" in k and isinstance(v, dict)}
