"""Tell a finished run again, or gather a sweep: `python analyze.py run=FOLDER`, `python analyze.py gather=FOLDER`."""

import gc

from diffprobe.signals import listen

listen()  # before the imports that take time
gc.disable()  # until work begins: to look at all that is imported, none of it garbage, takes a fifth of the time

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from diffprobe.cli.errors import plain_errors  # noqa: E402


@plain_errors
@hydra.main(version_base="1.3", config_path="conf", config_name="analyze")
def main(config: DictConfig) -> None:
    from diffprobe.cli.running import run_analysis

    run_analysis(config)


if __name__ == "__main__":
    main()
