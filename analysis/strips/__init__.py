"""From the result of each view to its token strip: which tokens, which colours, what the inspector says."""
