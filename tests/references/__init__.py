"""What every method is to compute, as plain loops in float64 over one image; shares no code with hf_vtp."""
