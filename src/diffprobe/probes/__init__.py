"""Probes: what can be read off an activation with a linear map, how well, and against which controls."""
