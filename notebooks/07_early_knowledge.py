# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What early knowledge is worth
#
# Probes read saliency and shading after a few of fifteen steps. Is the picture settled then, so that the rest could be
# done with less work? A *shortcut* lets the sampler do less from a step on: no guidance, fewer and larger steps, deep
# features of the step before, or another prompt. The finished picture is compared with that of the whole run.

# %%
import diffprobe as dp

model = dp.load("pocket")
result = dp.shortcuts(
    model,
    count=15,
    properties="saliency",
    shortcuts=["guidance_off", "deep_features", "other_prompt"],
    steps=[4, "last"],
)
result

# %% [markdown]
# In the figure more work is to the right: a shortcut that is begun late spares little. A curve that is high at the left
# is worth taking. With few images the sentences say that they are too few, as they should. The defaults take 60
# prompts, all shortcuts and some minutes.
#
# The same over the number of full steps before the shortcut begins:

# %%
result.plot("shortcuts_over_steps")

# %% [markdown]
# ## One picture, by every shortcut
#
# Columns are the number of full steps before the shortcut begins, the last of them the whole run.

# %%
result.plot("shortcut_example_1")

# %% [markdown]
# The numbers behind the figures are tables. `work` counts operations of the denoiser, in evaluations of the whole run:
# one that reuses deep features does about six tenths of them.

# %%
result.tables["costs"].query("shortcut == 'deep_features'")

# %% [markdown]
# ## Does a layer know the same thing at all steps?
#
# A probe that was trained at one step can be tested at the others: if it keeps its score, the same direction carries
# the property over time. And CKA says how alike two layers, or two steps, lay out the tokens of images.

# %%
alike = dp.similarity(
    model, count=20, properties="saliency", layers="up_blocks.3.attentions.?", steps=[0, 3, 7, "last"]
)
alike

# %%
alike.plot("cka")

# %%
alike.plot("transfer_saliency")

# %% [markdown]
# How to read both, and what they do not show: [docs/shortcuts.md](../docs/shortcuts.md) and
# [docs/similarity.md](../docs/similarity.md).
