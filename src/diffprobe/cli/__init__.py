"""From a composed Hydra configuration to a run folder. `train.py` and `analyze.py` call in here."""

import diffprobe.parts  # noqa: F401  (it makes `${class_name:...}` known, which conf/ uses)
