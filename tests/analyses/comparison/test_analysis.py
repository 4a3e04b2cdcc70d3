"""Finished runs side by side, and `analyze.py analysis=compare` as a person runs it."""

from dataclasses import replace

import pytest

from diffprobe.analyses.comparison.analysis import (
    differing_settings,
    run_curves,
    run_differences,
    run_lines,
    run_scores,
)
from diffprobe.analyses.comparison.runs import headline_scores
from diffprobe.probes.score_table import read_scores, write_scores
from diffprobe.probes.summaries import Summary, summarise
from tests.analyses.comparison.made_up_runs import BLANK, IMAGES, make_object_run, make_run, score
from tests.commands import command, one_line
from tests.reference.score_rows import summary_table, table_of
from tests.tasks import refusal


def test_differences_are_of_the_images_that_both_have():
    runs = [make_run("one", 0.1), make_run("two", images=[*IMAGES[5:], "other"])]
    (row,) = run_differences(runs, headline_scores(runs))
    assert (row.model, row.other_model, row.n, row.left_out) == ("one", "two", 15, 6)
    assert row.difference == pytest.approx(0.1, abs=0.006)
    assert row.low is not None
    assert row.low > 0.08
    lines = run_lines(headline_scores(runs), [row])
    assert lines[0].startswith("saliency, Dice: one 0.80 [")
    assert "one is above two on the 15 images in common: 0.10 [" in lines[1]


def test_runs_without_images_in_common_have_no_difference_and_say_so():
    runs = [make_run("one"), make_run("two", images=["else"])]
    (row,) = run_differences(runs, headline_scores(runs))
    assert (row.n, row.difference) == (0, None)
    assert "no test images in common" in run_lines(headline_scores(runs), [row])[1]


def test_three_runs_are_compared_two_by_two_and_p_is_adjusted_for_all():
    runs = [make_run(name, gain) for name, gain in (("one", 0.0), ("two", 0.1), ("three", 0.2))]
    rows = run_differences(runs, headline_scores(runs))
    assert [(row.model, row.other_model) for row in rows] == [("one", "two"), ("one", "three"), ("two", "three")]
    assert all(row.p_holm == pytest.approx(3 * (row.p or 0)) for row in rows)


def test_objects_have_no_scores_image_by_image_and_no_differences():
    runs = [make_object_run("one", {"a": 0.6}), make_object_run("two", {"a": 0.7})]
    assert run_differences(runs, headline_scores(runs)) == []


def test_settings_are_listed_where_runs_differ():
    runs = [make_run("one", **{"seed": 0, "job": "x"}), make_run("two", **{"seed": 1, "job": "x"}), make_run("three")]
    rows = differing_settings(runs[:2])
    assert rows.to_numpy().tolist() == [["seed", "one", "0"], ["seed", "two", "1"]]
    assert set(differing_settings(runs).query("run == 'three'")["value"]) == {""}


def test_every_run_is_a_dot_with_its_interval_in_the_panel_of_its_property():
    rows = [score("one"), score("two"), score("one", "shading")]
    figure = run_scores(rows)
    assert [axes.get_title() for axes in figure.axes] == ["depth", "shading"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["one", "two"]
    interval, dot = figure.axes[0].lines[:2]
    assert list(interval.get_xdata()) == [0.4, 0.6]
    assert list(dot.get_xdata()) == [0.5]


def test_curves_are_of_the_chosen_layers_over_the_steps():
    def summary(step, layer):
        return Summary("pocket", layer, step, 1.0, "depth", "linear", "none", "test", "spearman", 0.1 * step, 0, 1, 20)

    rows = {
        run: summary_table(summary(step, layer) for layer in ("a", "b") for step in (1, 0)) for run in ("one", "two")
    }
    (axes,) = run_curves([score("one"), score("two")], rows).axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2], [1, 2]]


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
    summarise(table_of(scores)).to_csv(folder / "summary.csv", index=False)
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
    arguments = ("analysis=compare", runs, "logger=csv", f"hydra.run.dir={tmp_path / 'c'}")
    done = command("analyze.py", *arguments, blank_figures=True)
    assert done.returncode == 0, done.stderr
    assert "2 runs: 0, 10" in done.stdout


def test_a_sweep_of_analyses_is_not_gathered_and_the_other_way_is_told(tmp_path):
    job = finished(tmp_path / "sweep" / "0", 0.0, 0)
    (job / ".hydra" / "config.yaml").write_text("analysis: {kind: separation}\n")
    done = command("analyze.py", f"gather={tmp_path / 'sweep'}", cwd=tmp_path)
    assert f"analysis=compare 'analysis.runs=[{tmp_path / 'sweep'}]'" in one_line(done)


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
def test_what_cannot_be_compared_is_told_in_a_line(tmp_path, runs, told, monkeypatch):
    finished(tmp_path / "one", 0.0, 0)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "environment.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert told in refusal("analysis=compare", f"analysis.runs={runs}")
