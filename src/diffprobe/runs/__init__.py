"""The life of a run: its folder and lock, its processes and trainers, sweeps and their gathering."""
