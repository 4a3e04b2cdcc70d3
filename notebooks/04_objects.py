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
# # Objects inside the network
#
# A *prototype* is the activation averaged over one object's mask: a vector for each object, layer and step. Are objects
# of one class near each other, wherever they are? Four sets of distances answer it: **s**ame or **d**ifferent
# **c**lass, **s**ame or **d**ifferent **i**mage. The `p` of a layer is adjusted for the other layers: ask of few.

# %%
import diffprobe as dp

model = dp.load("pocket")
result = dp.separation(model, count=80, layers="resnet & resolution=16", label="colour", verbose=False)
result

# %% [markdown]
# ## The four sets
#
# Mean distances of the four sets. Where `scdi` is below `dcsi`, the class counts more than being in the same image.

# %%
means = result.tables["means"].set_index("layer")
means[[name for name in means if name.endswith("mean")]].round(3).tail(8)

# %% [markdown]
# How well the two kinds of pairs across images are told apart by their distance: the area under the curve (AUC; 0.5 is
# chance), with its interval over images.

# %%
tests = result.tables["tests"].query("statistic == 'auc' and set_a == 'scdi' and set_b == 'dcdi'")
tests.sort_values("value", ascending=False)[["layer", "value", "low", "high"]].head()

# %%
result.plot("separation")

# %% [markdown]
# ## Nearest neighbours
#
# Of some objects, those whose prototypes are nearest in other images.

# %%
result.plot("retrieval")

# %% [markdown]
# ## Prototypes for statistics of your own
#
# `object_prototypes` gives the vectors. Here in two dimensions (principal components), one point an object.

# %%
import matplotlib.pyplot as plt
import numpy as np

found = dp.object_prototypes(model, count=80, layers="resnet", label="colour")
found.objects.head()

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
labels = found.objects["label"].to_numpy()
for panel, layer in zip(axes, ("down 0.0", "mid", "up 3.2")):
    values = found[layer] - np.nanmean(found[layer], 0)
    kept = np.isfinite(values).all(1)
    plane = values[kept] @ np.linalg.svd(values[kept], full_matrices=False)[2][:2].T
    for label in sorted(set(labels)):
        points = plane[labels[kept] == label]
        colour = {"grey": "0.5"}.get(label, label)
        panel.scatter(*points.T, s=12, color=colour, edgecolors="0.3", linewidths=0.3, label=label)
    panel.set(title=layer, xticks=[], yticks=[])
_ = axes[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))

# %% [markdown]
# Next: [05_moving_an_object](05_moving_an_object.ipynb).
