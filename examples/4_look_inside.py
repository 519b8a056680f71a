# %% [markdown]
# # Depth, attention and attribution
#
# Where does a model become sure, what does it look at, and which tokens does its uncertainty depend on?

# %%
import micro_step as ms

model = ms.load("tiny-sft")
text = "Once upon a time there was a little girl named Lily. She loved to play in the garden with her dog."

# %% [markdown]
# `depth` reads a prediction from every layer (the logit lens). The strip is coloured by the layer at which each token is decided:
# the first layer from which on the likeliest token stays the same.

# %%
depth = ms.depth(model, text)
depth.strip()

# %% [markdown]
# `attention` has a row for each layer and head, and maps as figures.

# %%
attention = ms.attention(model, text)
print(attention.figures)
attention.table.head()

# %%
attention.figure("map", layer=2, head=1)

# %% [markdown]
# `attribute` finds the tokens that a number depends on: here the entropy at one token. Orange tokens raise it, blue ones lower it.

# %%
attribution = ms.attribute(model, text, quantity="entropy", at=12)
print(attribution.summary)
attribution.strip()
