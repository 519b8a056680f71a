"""Texts and conversations, chat templates, and token ids that know their place in the text."""
