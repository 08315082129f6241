"""Model cards: what they say, and how they are made and pushed."""
