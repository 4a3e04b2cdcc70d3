"""`analyze.py analysis=compare`, as a person runs it."""

from dataclasses import replace

import pytest

from diffprobe.probes.score_table import read_scores, write_scores
from diffprobe.probes.summaries import summarise, write_summary
from tests.commands import command, one_line
from tests.reference.score_rows import Score, table_of

BLANK = Score("pocket", "a", 0, 999.0, "saliency", "linear", "none", "test", "", "dice", 0.0)


def finished(folder, gain, seed):
    """A run folder as train.py leaves it, of ten images."""
    scores = [
        replace(BLANK, split=split, step=step, image=f"image{number}", value=0.5 + 0.01 * number + 0.1 * step + gain)
        for split in ("validation", "test")
        for step in (0, 1)
        for number in range(10)
    ]
    (folder / ".hydra").mkdir(parents=True)
    write_scores(folder, table_of(scores))
    write_summary(folder / "summary.csv", summarise(table_of(scores)))
    (folder / ".hydra" / "config.yaml").write_text(f"seed: {seed}\njob: x\n")
    (folder / "environment.json").write_text("{}")
    return folder


@pytest.mark.slow
def test_runs_are_put_side_by_side_with_their_differences_and_a_page(tmp_path):
    one, two = finished(tmp_path / "a" / "run", 0.1, 0), finished(tmp_path / "b" / "run", 0.0, 1)
    read_scores(two).to_csv(two / "scores.csv", index=False)  # as a run of the first edition
    (two / "scores.parquet").unlink()
    done = command(
        "analyze.py",
        "analysis=compare",
        f"analysis.runs=[{one},{two}]",
        "logger=csv",
        f"hydra.run.dir={tmp_path / 'c'}",
    )
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "c" / "report.txt").read_text()
    assert "saliency: a/run is above b/run on the 10 images in common: 0.10 [0.10, 0.10]" in report
    assert (tmp_path / "c" / "settings.csv").read_text() == "setting,run,value\nseed,a/run,0\nseed,b/run,1\n"
    assert "2 runs side by side" in (tmp_path / "c" / "report.html").read_text()
    assert (tmp_path / "c" / "figures" / "runs_over_steps.pdf").exists()
    assert (tmp_path / "c" / "environment.json").exists()


def test_the_finished_jobs_of_a_sweep_are_put_side_by_side(tmp_path):
    for job in (0, 2, 10):
        finished(tmp_path / "sweep" / str(job), 0.1 * job, job)
    (tmp_path / "sweep" / "2" / "environment.json").unlink()
    runs = f"analysis.runs=[{tmp_path / 'sweep'}]"
    done = command("analyze.py", "analysis=compare", runs, "logger=csv", f"hydra.run.dir={tmp_path / 'c'}")
    assert done.returncode == 0, done.stderr
    assert "2 runs: 0, 10" in done.stdout


def test_a_sweep_of_analyses_is_not_gathered_and_the_other_way_is_told(tmp_path):
    job = finished(tmp_path / "sweep" / "0", 0.0, 0)
    (job / ".hydra" / "config.yaml").write_text("analysis: {kind: separation}\n")
    done = command("analyze.py", f"gather={tmp_path / 'sweep'}", cwd=tmp_path)
    assert f"analysis=compare 'analysis.runs=[{tmp_path / 'sweep'}]'" in one_line(done)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ("[]", "at least two different runs"),
        ("[one,one]", "at least two different runs"),
        ("[one,nowhere]", "there is no folder"),
        ("[one,unfinished]", "is no finished run"),
        ("[one,empty]", "nothing to compare"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_line(tmp_path, runs, told):
    finished(tmp_path / "one", 0.0, 0)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "environment.json").write_text("{}")
    done = command(
        "analyze.py", "analysis=compare", f"analysis.runs={runs}", f"hydra.run.dir={tmp_path / 'c'}", cwd=tmp_path
    )
    assert told in one_line(done)
