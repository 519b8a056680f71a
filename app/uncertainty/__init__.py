"""The Uncertainty page's parts."""
