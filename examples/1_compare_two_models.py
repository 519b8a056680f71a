# %% [markdown]
# # Compare two models on a text
#
# `tiny-base` is a small pretrained model, `tiny-sft` its fine-tuned version. Both come with the project, so nothing is downloaded.
# The terms are explained in [docs/glossary.md](../docs/glossary.md).

# %%
import micro_step as ms

text = "Once upon a time there was a little girl named Lily. She loved to play in the garden with her dog."
comparison = ms.compare("tiny-base", "tiny-sft", text, unit="bits")
comparison

# %% [markdown]
# A notebook shows the finding, the text token by token, and the table. Point at a token to see what both models expected there,
# click to pin it. The arrow keys move the pin, `n` and `p` lead to the largest changes, and Esc removes the pin. This works in
# a saved notebook, too, without a kernel.
#
# `strip` shows the text alone: here coloured by what changed, with a character of it pinned.

# %%
comparison.strip(lens="change", measure="js", pinned=41)

# %% [markdown]
# Which figures are there? `line` shows both models token by token.

# %%
print(comparison.figures)
comparison.figure("line")

# %% [markdown]
# The numbers behind every figure are available as a table: `scatter` has a row for each piece of text that both models scored,
# with KL and JS.

# %%
comparison.data("scatter").head()

# %% [markdown]
# One model alone gives a row per token: entropy, confidence, margin, surprisal, rank.

# %%
scores = ms.score("tiny-sft", text, unit="bits")
print(scores.summary)
scores.table.head(10)

# %% [markdown]
# `export` chooses the format by the suffix: a table, a picture, or a `.zip` bundle that also holds the command that reproduces
# the figure.

# %%
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    comparison.export(Path(folder) / "table.csv")
    comparison.export(Path(folder) / "line.html", "line")
    print(sorted(path.name for path in Path(folder).iterdir()))
