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
# # Your own property
#
# Saliency, depth and shading are what the papers probe. A property can be anything that has a value at each pixel: a
# mask, a quantity, classes, vectors. Labels come from a function, from map files, or from image models.

# %%
import diffprobe as dp

model = dp.load("pocket")

# %% [markdown]
# ## A function as labeler
#
# It is given `[images, 3, height, width]` in [0, 1] and returns one map an image. Here: how red a pixel is.


# %%
def redness(images):
    return images[:, 0] - images[:, 1:].mean(1)


red = dp.CustomProperty("redness", "continuous")
result = dp.probe(
    model,
    count=60,
    properties=red,
    labels=redness,
    layers="self_attention & resolution=16",
    probe="ridge",
    features="none",
)
result

# %%
result.plot("scores_over_steps")

# %%
result.show(1)

# %% [markdown]
# ## Real images, and maps in files
#
# Photographs with masks work the same way: `images` is a folder or a list, `labels` a folder with one sub-folder for
# each property and one file for each image. The built-in world can render such a folder, with eight properties that are
# exactly known.

# %%
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

folder = Path(mkdtemp())
subprocess.run([sys.executable, "-m", "diffprobe.pocket", folder, "--count", "60"], check=True)
sorted(path.name for path in (folder / "maps").iterdir())

# %% [markdown]
# The network sees each image at some noise levels (timesteps 0 to 999), as in the middle of a denoising.

# %%
result = dp.probe(
    model,
    images=folder / "images" / "captions.csv",
    labels=folder / "maps",
    properties=["depth", "colour"],
    timesteps=[0, 200, 400, 600, 800],
    layers="resnet & resolution=16",
    probe="ridge",
)
result

# %% [markdown]
# The heat maps say how much can still be read behind more noise: step 1 is timestep 0, step 5 is timestep 800. With 12
# test images the intervals are wide, and the sentences above claim no more than they allow.

# %%
result.show(0)

# %% [markdown]
# What kinds of properties there are, and the files they come from, is in
# [docs/your_own_property.md](../docs/your_own_property.md). Next: [04_objects](04_objects.ipynb).
