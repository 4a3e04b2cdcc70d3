"""Depth: relative inverse depth, larger is nearer (as MiDaS gives it)."""

from diffprobe.probes.properties.property import Property
from diffprobe.probes.properties.regression import as_labelled, huber, only_output

DEPTH = Property(
    name="depth",
    outputs=1,
    binary=False,
    learning_rate=1e-3,
    headline="spearman",
    metrics=("spearman", "pearson", "rmse"),
    target=as_labelled,
    loss=huber,
    decode=only_output,
)
