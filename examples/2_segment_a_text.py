# %% [markdown]
# # Segment a text, and solve for a target length
#
# A *strategy* decides where segments start: a rule with parameters. `entropy:threshold=4` starts a segment where the entropy
# of the next token is above 4 nats.

# %%
import micro_step as ms

model = ms.load("tiny-sft")  # loaded once, used several times
text = "Once upon a time there was a little girl named Lily. She loved to play in the garden with her dog."
segmented = ms.segment(model, text, "entropy:threshold=4")
segmented

# %% [markdown]
# Neighbouring segments differ in tone, and the curve above them is the entropy. Point at a token to see why a segment starts
# there. The table has a row for each token:

# %%
segmented.table[["token", "entropy", "value", "starts_segment", "segment"]].head(10)

# %% [markdown]
# The text with its segments:

# %%
print("|".join(segmented.table.groupby("segment")["token"].agg("".join)))

# %% [markdown]
# Strategies are best compared at one mean length. `solve` finds the parameter that comes nearest to a target length, and gives
# the whole curve from the parameter to the mean length.

# %%
solved = ms.solve(model, text, "confidence", target_length=2.0)
print(solved.summary)
print(solved.raw.parameters)
solved.table.head()

# %%
solved.figure("curves")

# %% [markdown]
# `segment` can solve for a target length itself. Three strategies with two tokens per segment on average:

# %%
for strategy in ("entropy", "confidence", "entropy_relative"):
    print(ms.segment(model, text, strategy, target_length=2.0).summary)
