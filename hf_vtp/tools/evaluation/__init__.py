"""Quality of pruned models on real data: the code behind eval-clip and eval-vlm."""
