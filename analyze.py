"""Tell a finished run again, or gather a sweep: `python analyze.py run=FOLDER`, `python analyze.py gather=FOLDER`."""

from diffprobe.commands.console import start

if __name__ == "__main__":
    start("analyze")
