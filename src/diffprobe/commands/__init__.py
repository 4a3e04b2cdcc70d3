"""The console command `diffprobe`, and the two of its commands that Hydra composes."""
