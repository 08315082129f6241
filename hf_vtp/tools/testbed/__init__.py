"""Trained models small enough to ship, and the endless captioned, questioned scenes they learned from."""
