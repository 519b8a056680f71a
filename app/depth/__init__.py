"""The Depth page's parts."""
