"""Tell a finished run again, gather a sweep, or run an analysis: `diffprobe analyze`, or `python analyze.py`."""

import hydra
from omegaconf import DictConfig

from diffprobe.cli.conf import package_conf
from diffprobe.cli.errors import plain_errors


@plain_errors
@hydra.main(version_base="1.3", config_path=str(package_conf()), config_name="analyze")
def main(config: DictConfig) -> None:
    from diffprobe.cli.running import run_analysis

    run_analysis(config)


if __name__ == "__main__":  # for a further device of `diffprobe analyze`
    main()
