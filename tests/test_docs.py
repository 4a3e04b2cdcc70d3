"""What the documentation tells people to type works."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)


def commands_of(page: str) -> list[str]:
    """The lines of its blocks that run train.py."""
    lines = "\n".join(blocks_of(page)).replace("\\\n", " ").splitlines()
    return [line for line in lines if "python train.py" in line]


@pytest.mark.slow
def test_the_python_page_runs_as_written(capsys, tmp_path, monkeypatch):
    """With fewer images and steps."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text()
    for longer, shorter in (
        (r"\b14\b", "2"), (r"\b15\b", "3"), (r"count=[46]0\b", "count=10"),
        (r"(?<=properties=\[\"saliency\", \"depth\"\]), layers=layers", ", layers=layers[-1:], sampling_steps=3"),
        (r"dp.separation\(model", "dp.separation(model, overrides=['statistics.permutations=19']"),
    ):  # fmt: skip
        text = re.sub(longer, shorter, text)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 10
    scope: dict[str, object] = {}
    printed = []
    for block in blocks:
        exec(block.replace("steps=[0, 2])\nfound", "steps=[0, 2], sampling_steps=3)\nfound"), scope)
        printed.append(capsys.readouterr().out)
    assert len(printed[2].splitlines()) == 3
    assert printed[7].splitlines()[-1] == "4 torch.Size([2, 2, 96, 4, 4])"
    assert printed[8].splitlines()[-1] == str(dict.fromkeys(range(3), 4))
    assert "'up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_out.0': (1, 64, 16, 16)" in printed[9]
    assert (tmp_path / "runs" / "python" / "first" / "report.html").exists()


@pytest.mark.slow
def test_the_python_of_the_readme_runs_as_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block.count("count=60") == 1
    exec(block.replace("count=60", "count=10, sampling_steps=3, layers='mid'"), {})
    assert "rank correlation" in capsys.readouterr().out


def test_the_readme_begins_as_the_first_run_ends():
    """It prints a part of what docs/first_run.md prints."""
    (short,) = re.findall(r"```\n(- By step.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert short in (ROOT / "docs" / "first_run.md").read_text()


@pytest.mark.slow
def test_the_page_of_prototypes_runs_as_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "prototypes.md").read_text(), re.DOTALL)
    assert block.count("count=50") == 1
    exec(block.replace("count=50", "count=8"), {})
    assert "('down_blocks.2.resnets.1', 0." in capsys.readouterr().out


def test_the_page_of_reports_runs_as_written(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "report.md").read_text(), re.DOTALL)
    exec(block, {})
    out = capsys.readouterr().out
    assert "0.840 [0.800, 0.870]" in out
    assert out.endswith("True\n")


def test_the_commands_of_the_cluster_page_keep_a_store():
    commands = commands_of("cluster")
    assert len(commands) == 5
    assert [command for command in commands if "features=disk" not in command] == []


def test_the_scripts_of_the_cluster_page_are_bash():
    scripts = [block for block in blocks_of("cluster") if block.startswith("#!/bin/bash\n")]
    assert len(scripts) == 3
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK\nsrun python train.py " in script
