"""The interactive page: see what probes see, draw another mask, denoise with it."""
