"""The Attribution page's parts."""
