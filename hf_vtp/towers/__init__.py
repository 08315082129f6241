"""Vision towers: hooks that make tokens leave after a layer, one pattern a file."""
