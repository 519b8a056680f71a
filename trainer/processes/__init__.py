"""How the processes of a run share its weights: each holds all of them, or each holds a part."""
