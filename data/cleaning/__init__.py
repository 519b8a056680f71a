"""Clean a mix: filters, duplicates, contamination, and a report of what was dropped."""
