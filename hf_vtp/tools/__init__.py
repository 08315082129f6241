"""The tools behind the command line and scripts/; the core never imports them."""
