"""What the command line and scripts/ drive; the core never imports it."""
