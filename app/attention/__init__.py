"""The Attention page's parts."""
