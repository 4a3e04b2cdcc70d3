"""From a composed Hydra configuration to a run folder. `train.py` and `analyze.py` call in here."""

from omegaconf import OmegaConf

from diffprobe.parts import class_name

# `${class_name:${analysis}}`: the name of the folder that runs of an analysis go to.
OmegaConf.register_new_resolver("class_name", class_name, replace=True)
