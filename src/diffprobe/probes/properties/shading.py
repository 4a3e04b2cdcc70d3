"""Shading: irradiance, the light that falls on each visible point."""

from diffprobe.probes.properties.property import Property
from diffprobe.probes.properties.regression import as_labelled, huber, only_output

SHADING = Property(
    name="shading",
    outputs=1,
    binary=False,
    learning_rate=1e-2,
    headline="spearman",
    metrics=("spearman", "pearson", "rmse"),
    target=as_labelled,
    loss=huber,
    decode=only_output,
)
