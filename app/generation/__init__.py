"""The Generation page's parts."""
