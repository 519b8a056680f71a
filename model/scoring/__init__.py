"""Scores of every token: entropy, confidence, surprisal, rank; limited history; continuations."""
