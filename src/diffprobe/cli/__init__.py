"""From a composed Hydra configuration to a run folder. The doors `train.py` and `analyze.py` call in here."""
