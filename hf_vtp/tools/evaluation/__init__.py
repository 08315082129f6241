"""Quality of pruned models on real data: the code behind scripts/eval_clip.py and scripts/eval_vlm.py."""
