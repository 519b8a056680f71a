"""Scores of one text under one model or two, and what differs."""
