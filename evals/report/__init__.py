"""Reports of evaluations: scores, tables, figures, samples side by side."""
