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
# # What can be read, where and when
#
# The main study: for each layer, step and property a linear probe is trained on activations of some images, its
# settings are chosen on others, and it is scored once on the rest. Here with 60 images, the nine layers of the decoder,
# and closed-form probes (ridge), which are trained and scored while the images are made; `python train.py` does it with
# 200 images, all 16 layers, and Adam.

# %%
import diffprobe as dp

model = dp.load("pocket")
result = dp.probe(
    model, count=60, properties=["saliency", "depth"], layers="self_attention & decoder", probe="ridge", features="none"
)

# %% [markdown]
# ## The answer
#
# A result shows its sentences, then one heat map for each property: layers from the input of the network to its output,
# steps from left to right. A sentence claims only what the intervals support, so with few images some of them say that
# nothing is shown.

# %%
result

# %% [markdown]
# ## Over the steps, beside controls
#
# A score means little by itself. The *permuted network* has the same architecture and shuffled weights; *pixel
# position* sees no image at all, only where in the picture a pixel is. What is above both is knowledge of the network.

# %%
result.plot("scores_over_steps")

# %% [markdown]
# ## What a probe sees
#
# One test image as it is denoised. Below it are the predictions of the best layer's probe, at the resolution of the
# layer; on the right the finished image and its labels.

# %%
result.show(0)

# %% [markdown]
# ## Numbers
#
# Everything is a DataFrame. `summary` has means over images with their 95 % intervals; `control` is `none` for the
# network itself. Steps count from 0 in data, from 1 in figures.

# %%
best = result.summary.query("metric == 'spearman' and split == 'test' and control == 'none'")
best.sort_values("mean", ascending=False)[["layer", "step", "mean", "low", "high", "n"]].head()

# %% [markdown]
# Are two probes different *on the same images*? `comparisons` is paired, so that how hard an image is drops out, and
# `p_holm` is adjusted for all controls of a property (Holm).

# %%
last = result.tables["comparisons"].query("family == 'control' and step == 14")
last[["property", "other_control", "difference", "low", "high", "p_holm"]].head(8)

# %% [markdown]
# How do single images spread? `scores` has a row for each of them.

# %%
import matplotlib.pyplot as plt

rows = result.scores.query("metric == 'dice' and split == 'test' and step == 14 and control == 'none'")
by_layer = rows.groupby("layer", observed=True)["value"].apply(list)
short = model.layers("self_attention").short

figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
axes.boxplot(by_layer.to_list(), tick_labels=[short[name] for name in by_layer.index])
axes.set(ylabel="Dice", title="saliency at the last step: one box a layer, over test images")
axes.tick_params(axis="x", rotation=60)

# %% [markdown]
# ## Keep it
#
# `save` writes a run folder as `train.py` does: tables in CSV, Markdown and LaTeX, figures in PNG and PDF, the probes,
# and `report.html`, which opens without network.

# %%
from tempfile import mkdtemp

run = dp.read_run(result.save(f"{mkdtemp()}/main_study"))
print((run.folder / "tables" / "best_layers.md").read_text()[:1200])

# %% [markdown]
# Next: [03_your_own_property](03_your_own_property.ipynb).
