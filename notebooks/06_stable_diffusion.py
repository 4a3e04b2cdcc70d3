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
# # Bring Stable Diffusion
#
# All of this works on published models: Stable Diffusion 1.x, 2.x, XL, 3, FLUX, PixArt, unconditional DDPM. This
# notebook says what changes. Cells that need weights are marked **needs weights** and do nothing without them: set
# `SD14` to a pipeline folder, a hub id such as `CompVis/stable-diffusion-v1-4`, or a checkpoint file.

# %%
import os

import diffprobe as dp

SD14 = os.environ.get("SD14")  # such as "CompVis/stable-diffusion-v1-4"

# %% [markdown]
# ## Which layers there are
#
# The layers of Stable Diffusion 1.4 are known without its weights.

# %%
from diffprobe.backbone.layers import catalogue, select_layers
from diffprobe.backbone.load import denoiser_without_weights

layers = dp.Layers(select_layers(catalogue(denoiser_without_weights("sd14")), "self_attention"))
layers

# %% [markdown]
# ## What they cost
#
# Activations are large: numbers of one image at one step, in half precision, and at all of 15 steps. Ridge probes
# (`probe="ridge"`, `features="none"`) keep none of them.

# %%
sizes = layers.frame.assign(megabytes=[2 * layer.channels * layer.tokens / 1e6 for layer in layers])
print(f"{sizes.megabytes.sum():.1f} MB a step, {15 * sizes.megabytes.sum():.0f} MB an image")
sizes.plot.bar(x="short", y="megabytes", figsize=(7, 2.2), legend=False, ylabel="MB a step")
# %% [markdown]
# ## Is the installation that of the papers?
#
# `python -m diffprobe.backbone.certify sd14` compares weights, tokens, noise, sampler and layers with what is known
# ([docs/certificate.md](../docs/certificate.md)). Run it once.

# %% [markdown]
# **Needs weights.** One image, and its activations.

# %%
if SD14:
    model = dp.load(SD14, dtype="float16")
    found = model.capture(
        "a photograph of an astronaut riding a horse", layers="self_attention & decoder", steps=[0, 4, 14]
    )
    display(found.show(0, layers="up_blocks.3*"))

# %% [markdown]
# **Needs weights.** The main study. Labels come from image models ([docs/labels.md](../docs/labels.md)) or from map
# files; `prompts.csv` has the columns `prompts, seeds, prompt_inds`.

# %%
if SD14:
    result = dp.probe(
        model,
        prompts="prompts.csv",
        labels="maps",
        properties=["saliency", "depth"],
        layers="self_attention & decoder",
        probe="ridge",
        features="none",
    )
    display(result)

# %% [markdown]
# The same as a command, which can be interrupted and goes on, and which several GPUs share:
#
# ```bash
# python train.py model=sd14 data.prompts=prompts.csv labeler=files labeler.path=maps features=disk
# ```
#
# Next: [07_early_knowledge](07_early_knowledge.ipynb).
