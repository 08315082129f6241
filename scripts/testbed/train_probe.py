#!/usr/bin/env python
"""Train a scorer for `scorer="linear_probe"`: which tokens of an early layer matter in the last one.

    python scripts/testbed/train_probe.py --out probe.safetensors

On drawn scenes, a LayerNorm and a linear layer (with --hidden, a layer with GELU between them) learn from
the hidden states after --layer how strongly [CLS] attends to each token in the CLIP's last layer. The last
line of stdout is the result as one JSON object.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from hf_vtp.files import replacing
from hf_vtp.tools.bench import cli
from hf_vtp.tools.testbed.batches import pixels
from hf_vtp.tools.testbed.load import load
from hf_vtp.tools.testbed.losses import normalised
from hf_vtp.tools.testbed.scenes import make_scene

CLIP = Path(__file__).resolve().parents[2] / "tests" / "testbed" / "clip"


class Probe(nn.Module):
    """The tensors that hf_vtp/probe_files.py reads, by their names there."""

    def __init__(self, width: int, hidden: int | None):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, hidden) if hidden else None
        self.linear = nn.Linear(hidden or width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        return self.linear(x if self.hidden is None else nn.functional.gelu(self.hidden(x))).squeeze(-1)


def standard(x: torch.Tensor) -> torch.Tensor:
    """Each image's numbers [B, N] with mean 0 and deviation 1, since a probe need only rank."""
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp(min=1e-6)


def main(argv: list[str]) -> None:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--out", required=True, help="the safetensors file")
    p.add_argument("--model", default=str(CLIP), help="folder of a CLIP of the testbed")
    p.add_argument("--layer", type=int, default=1, help="tokens leave after this layer (1)")
    p.add_argument("--hidden", type=cli.count, help="width of a hidden layer; default: none")
    p.add_argument("--steps", type=cli.count, default=60)
    p.add_argument("--batch", type=cli.count, default=32, help="scenes a step")
    p.add_argument("--seed", type=cli.seed, default=0, help="of the probe and the scenes")
    args, start = p.parse_args(argv), time.perf_counter()
    out = cli.writable(args.out, ".safetensors")
    vision = load(args.model).model.vision_model
    vision.set_attn_implementation("eager")
    if not 0 <= args.layer < vision.config.num_hidden_layers - 1:
        raise cli.UsageError(f"--layer must lie from 0 to {vision.config.num_hidden_layers - 2}")
    torch.manual_seed(args.seed)
    probe = Probe(vision.config.hidden_size, args.hidden)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=3e-3)
    for step in range(args.steps):
        scenes = [make_scene(args.seed, step * args.batch + i, "train") for i in range(args.batch)]
        images = normalised(torch.from_numpy(np.stack([pixels(scene) for scene in scenes])))
        with torch.no_grad():
            seen = vision(pixel_values=images, output_hidden_states=True, output_attentions=True)
        wanted = standard(seen.attentions[-1][:, :, 0, 1:].mean(1).clamp(min=1e-9).log())  # [B, N]
        found = standard(probe(seen.hidden_states[args.layer + 1][:, 1:]))
        loss = (found - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with replacing(out) as path:
        save_file(probe.state_dict(), path)
    correlation = (found * wanted).mean().item()  # on scenes of the last step, before it
    result = {"steps": args.steps, "correlation": round(correlation, 4), "out": str(out)}
    result |= {"seconds": round(time.perf_counter() - start, 1), "command": cli.command()}
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(cli.run(main))
