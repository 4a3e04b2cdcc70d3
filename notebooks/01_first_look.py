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
# # A first look inside a diffusion model
#
# A diffusion model makes an image in some steps, from noise. At every step each layer of its network computes an
# *activation*: channels over a grid of positions. This notebook loads a model, looks at its layers, and takes
# activations while images are made.
#
# Everything here runs on the small built-in model, `pocket`, in seconds on a laptop. It has the layer names of Stable
# Diffusion 1.4 and draws coloured solids. What is found here is found about `pocket`, not about Stable Diffusion.

# %%
import diffprobe as dp

model = dp.load("pocket")
model

# %% [markdown]
# ## Layers
#
# A selection of layers shows itself as a table. Conditions are joined by `&`: kinds (`self_attention`, `resnet`),
# stages (`encoder`, `mid`, `decoder`), resolutions, or globs of names. `short` is the name that figures use.

# %%
layers = model.layers("self_attention & decoder")
layers

# %% [markdown]
# ## Images, step by step
#
# `capture` makes images and keeps the activations of some layers. A figure shows what each step's latents decode to.

# %%
found = model.capture(["a red sphere", "a blue cube"], layers=layers)
found

# %%
found.show(0)

# %%
found.show(1)

# %% [markdown]
# ## Activations
#
# `found[LAYER]` is a tensor `[steps, images, channels, height, width]`, by full or short name.

# %%
found["up 3.1"].shape

# %% [markdown]
# How strong the activations are at each position (root mean square over channels), for three layers of one resolution.
# In which of them does the object stand out before the picture shows it?

# %%
found.show(0, layers="up_blocks.3*")

# %% [markdown]
# Strength is only one number of each position. Are two positions alike? Take the position in the middle of the object
# at the last step, and compare its activation with that of all others (cosine similarity).

# %%
import matplotlib.pyplot as plt
from torch.nn.functional import cosine_similarity

activation = found["up 3.1"][:, 0]  # [steps, channels, height, width]
row, column = divmod(activation[-1].square().mean(0).argmax().item(), activation.shape[-1])
similar = [cosine_similarity(step, step[:, row, column][:, None, None], dim=0) for step in activation]

figure, axes = plt.subplots(1, 5, figsize=(8, 2), layout="compressed")
for panel, step in zip(axes, (0, 2, 5, 9, 14)):
    panel.imshow(similar[step], vmin=-1, vmax=1, cmap="coolwarm")
    panel.set(title=f"step {step + 1}", xticks=[], yticks=[])

# %% [markdown]
# ## One step at a time
#
# For what should not be kept, `generate` hands over each step as it is made. This is the distance between the latents
# of two steps: how much is still being decided.

# %%
previous, moved = None, []
for step in model.generate("a red sphere"):
    if previous is not None:
        moved.append((step.latents - previous).square().mean().sqrt().item())
    previous = step.latents

figure, axes = plt.subplots(figsize=(4, 2.2), layout="constrained")
axes.plot(range(2, len(moved) + 2), moved, marker="o")
_ = axes.set(xlabel="denoising step", ylabel="change of the latents (RMS)", ylim=(0, None))

# %% [markdown]
# Next: [02_main_study](02_main_study.ipynb) asks what a *linear* probe can read from these activations, and says how
# sure that is.
