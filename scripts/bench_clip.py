#!/usr/bin/env python
"""What pruning buys on a vision tower: time, throughput, FLOPs, memory, and the cosine it costs.

    python scripts/bench_clip.py                              trained weights, scikit-image's photographs
    python scripts/bench_clip.py --weights random             speed alone, nothing is downloaded
    python scripts/bench_clip.py --weights random --model google/siglip-base-patch16-224   or any other tower
    python scripts/bench_clip.py --images photos/ --method vtp qk_topk --json out.json --plot out.png

Towers are those of CLIP, SigLIP, DINOv2, ViT and of every other model_type that hf_vtp prunes without a
language model. The last line of stdout is the result as one JSON object.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("bench-clip"))
