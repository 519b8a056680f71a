"""The Corpus page's parts."""
