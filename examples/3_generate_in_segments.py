# %% [markdown]
# # A micro_step model generates
#
# `micro-step-tiny` writes in segments: its base runs once per segment (a *macro step*), and a small decoder writes the rest of the
# segment while it is confident.

# %%
import micro_step as ms

model = ms.load("micro-step-tiny")
prompt = [{"role": "user", "content": "Tell me a story about Lily and a dog at the park."}]
answer = ms.generate(model, prompt, chat=True, confidence=0.5, max_new_tokens=24)
answer

# %% [markdown]
# The summary shows the segments, tokens per macro step, and how the answer compares with the base's own. In the strip, numbers
# count macro steps. The table has a row for each token of both answers.
#
# `confidence` is tau: a token is kept if the small decoder gives it at least this probability. A higher tau gives shorter segments
# and more passes of the base. Above 1 the base writes alone.

# %%
for tau in (0.3, 0.6, 1.1):
    result = ms.generate(model, prompt, chat=True, confidence=tau, max_new_tokens=24)
    print(f"tau {tau}: {result.raw.tokens_per_macro_step:.2f} tokens per macro step")

# %% [markdown]
# In *lossless* mode the small decoder only drafts, and the base verifies each draft in one pass. The answer equals the base's.

# %%
lossless = ms.generate(model, prompt, chat=True, confidence=0.5, lossless=True, max_new_tokens=24)
print(lossless.summary)
assert list(lossless.raw.micro.ids) == list(lossless.raw.base.ids)
