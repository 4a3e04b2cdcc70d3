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
# # Moving an object
#
# That a probe *reads* a property does not say that the network *uses* it. An intervention asks: if the activations are
# edited in the first steps, so that the probe reads the object somewhere else, is the object somewhere else in the
# finished picture?

# %%
import diffprobe as dp

model = dp.load("pocket")
result = dp.intervene(model, count=8, overrides=["data.count=40", "analysis.frames=0"])
result

# %% [markdown]
# ## Edited images
#
# From top to bottom: the image and its saliency map, the map that is wanted, the image that is denoised with edited
# activations (with the outline of that map), and what its saliency map is.

# %%
result.plot("intervention_examples")

# %% [markdown]
# ## How often does it work?
#
# The overlap (Dice) of the new picture's saliency with the map that was asked for, beside that of the unedited picture
# and of random edits, which are as large and have a random direction: they should not move the object.

# %%
result.plot("intervention_scores")

# %%
sorted(result.tables)

# %% [markdown]
# [docs/intervention.md](../docs/intervention.md) lists the ways of editing, and the settings of the papers. Next:
# [06_stable_diffusion](06_stable_diffusion.ipynb).
