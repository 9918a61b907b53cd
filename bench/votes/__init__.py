"""Votes: what judging leaves, and the numbers that are folded from them."""
