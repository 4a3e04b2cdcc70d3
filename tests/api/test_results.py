"""Results in Python: tables, figures, and run folders that are written and read."""

import json

import pandas as pd
import pytest
from matplotlib.figure import Figure

import diffprobe as dp
from tests.commands import command, save_coarse


@pytest.fixture(scope="module", autouse=True)
def coarse_figures():
    """Figures are drawn once, coarsely, and their PDFs are blank, as in a run of `command`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", save_coarse)
        yield


@pytest.fixture(scope="module")
def result():
    return dp.probe(
        "pocket", count=30, properties=["depth", "saliency"], layers="self_attention & resolution=16", sampling_steps=2,
        probe="ridge", features="none", verbose=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("runs") / "one")


def test_a_result_has_tables_sentences_and_figures(result):
    assert {"scores", "summary", "comparisons", "best_layers"} <= set(result.tables)
    assert len(result.scores) > len(result.summary) > 0
    assert any("depth" in line for line in result.findings)
    assert result.figures[0] == "scores_over_steps"
    assert len(result.plot().axes) == 2
    assert result.show(1).get_suptitle()
    assert result.bank.properties.keys() == {"depth", "saliency"}


def test_a_result_prints_its_closing_table_and_shows_heat_maps_in_a_notebook(result):
    assert "best layer" in repr(result)
    page = result._repr_html_()
    assert page.count("<table") == 2
    assert page.count("<li>") == len(result.findings)
    best = result.report.heatmaps[0].cells
    value = next(iter(best.values())).value
    assert f">{value:.2f}</td>" in page


@pytest.mark.parametrize("name", ["no_such", "scores"])
def test_a_figure_that_is_not_there_is_named(result, name):
    with pytest.raises(dp.UserError, match=f"no figure '{name}'; there are scores_over_steps"):
        result.plot(name)


def test_an_example_that_is_not_there_is_refused(result):
    with pytest.raises(dp.UserError, match=r"example 3: there are 3, .*report\.examples"):
        result.show(3)


def test_a_saved_result_is_a_run(result, saved):
    run = dp.read_run(saved)
    assert (run.kind, run.findings) == ("probing", result.findings)
    pd.testing.assert_frame_equal(run.summary, result.summary, check_dtype=False, check_exact=True)
    assert len(run.scores) == len(result.scores)
    assert set(run.figures) == set(result.figures)
    assert next(iter(run.figures)) == "layers_depth"
    assert run.bank.properties.keys() == {"depth", "saliency"}
    assert run.environment["seeds"] == {"seed": 0}
    assert run.config["property"]["names"] == ["depth", "saliency"]
    assert run.plot("example_1").axes
    assert "data:image/png" in run._repr_html_()


def test_the_page_names_the_command_that_makes_it_again(saved):
    page = (saved / "report.html").read_text()
    assert "python train.py model=pocket property.names=[depth,saliency]" in page.replace("&#39;", "'").replace("'", "")


@pytest.mark.slow
def test_the_command_of_a_saved_result_makes_the_same_numbers(result, saved, tmp_path):
    overrides = (saved / ".hydra" / "overrides.yaml").read_text()
    typed = [line.removeprefix("- ").strip() for line in overrides.splitlines()]
    typed = [item[1:-1].replace("''", "'") if item.startswith("'") else item for item in typed]
    done = command("train.py", *typed, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path, blank_figures=True)
    assert done.returncode == 0, done.stderr
    again = dp.read_run(tmp_path / "run").summary
    pd.testing.assert_frame_equal(again, result.summary, check_dtype=False, rtol=1e-5)


def test_a_folder_with_something_else_is_left_alone(result, saved, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    for folder in (saved, tmp_path):
        with pytest.raises(dp.UserError, match="is not empty"):
            result.save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_prompts_and_labels_of_python_are_recorded(tmp_path):
    result = dp.probe(
        "pocket", prompts=[f"a red cube {at}" for at in range(10)], labels=brightness, sampling_steps=2, verbose=False,
        properties=dp.CustomProperty("brightness", "continuous"), layers="up_blocks.3.resnets.0", probe="ridge",
    )  # fmt: skip
    run = dp.read_run(result.save(tmp_path / "run"))
    assert dp.prompts(run.config["data"]["prompts"])[3].text == "a red cube 3"
    assert run.config["labeler"]["_target_"].endswith("test_results.brightness")
    assert "brightness" in (run.folder / "report.html").read_text()
    done = command("analyze.py", f"run={run.folder}", cwd=tmp_path, blank_figures=True)
    assert done.returncode == 0, done.stderr


def brightness(images):
    return images.mean(1)


def test_a_tracked_result_is_logged(result, tmp_path):
    folder = result.save(tmp_path / "run", track=True)
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))


def test_folders_that_hold_no_finished_run_are_refused(saved, tmp_path):
    with pytest.raises(dp.UserError, match="no such folder"):
        dp.read_run(tmp_path / "none")
    with pytest.raises(dp.UserError, match="holds no finished run"):
        dp.read_run(tmp_path)
    (tmp_path / "environment.json").write_text(json.dumps({}))
    with pytest.raises(dp.UserError, match="cannot read the configuration"):
        _ = dp.read_run(tmp_path).kind


def test_two_runs_are_compared(result, saved, tmp_path):
    other = dp.probe(
        "pocket", count=30, properties=["depth", "saliency"], layers="self_attention & resolution=16", sampling_steps=2,
        probe="ridge", features="none", seed=1, verbose=False,
    ).save(tmp_path / "other")  # fmt: skip
    compared = dp.compare(saved, dp.read_run(other), verbose=False)
    assert compared.kind == "comparison"
    assert compared.findings
    with pytest.raises(dp.UserError, match=r"result\.save"):
        dp.compare(saved, result)
