"""Reads files whose paths users give."""
