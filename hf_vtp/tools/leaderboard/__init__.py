"""The leaderboard: every method on every model of a file, as JSON, a page and a picture."""
