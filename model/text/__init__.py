"""Texts and conversations, chat templates, and token ids with their positions in the text."""
