"""Answers that come with the project: how they are written, and when one of them answers a question."""
