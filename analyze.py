"""Tell a finished run again, or gather a sweep: `python analyze.py run=FOLDER`, `python analyze.py gather=FOLDER`."""

import hydra
from omegaconf import DictConfig

from diffprobe.doors.errors import plain_errors


@plain_errors
@hydra.main(version_base="1.3", config_path="conf", config_name="analyze")
def main(config: DictConfig) -> None:
    from diffprobe.doors.analysis import run

    run(config)


if __name__ == "__main__":
    main()
