"""What a report leaves in a run folder, on the console and in the tracker."""

from dataclasses import replace

import numpy as np
import pytest
from pandas import read_csv

from diffprobe.report.publish import publish, report_text
from diffprobe.report.report import Animation, Headed
from tests.report.made_up_report import MadeUpRun, MadeUpTracker, make_report


@pytest.fixture
def run(tmp_path):
    run = MadeUpRun(tmp_path, MadeUpTracker())
    publish(make_report(), **vars(run))
    return run


def test_tables_keep_every_digit_and_paper_tables_have_markdown_and_latex(run):
    summary = make_report().tables["summary"].data
    written = read_csv(run.folder / "summary.csv", float_precision="round_trip")  # pandas 3.0 else loses the last digit
    assert written.equals(summary.astype({"step": "int64"}))
    assert "Of test images." in (run.folder / "tables" / "best.md").read_text()
    assert r"\toprule" in (run.folder / "tables" / "best.tex").read_text()
    assert not (run.folder / "summary.md").exists()


def test_figures_are_drawn_once_as_png_and_pdf_and_artifacts_saved_below_their_name(run):
    assert {path.name for path in (run.folder / "figures").iterdir()} == {
        "scores.png", "scores.pdf", "layers_saliency.png", "layers_saliency.pdf",
    }  # fmt: skip
    assert (run.folder / "probes" / "bank.txt").read_text() == "weights"


def test_the_console_shows_its_tables_and_the_findings_and_report_txt_the_same(run):
    text = (run.folder / "report.txt").read_text()
    assert run.printed == text + "made up\n"
    assert "Best layers" in text
    assert "0.300 [0.250, 0.350]" in text
    assert "- By step 2 of 3" in text
    assert "summary" not in text


def test_the_tracker_gets_the_report_with_its_figures_and_files(run):
    report, figures, files = run.tracker.logged
    assert report.scalars.columns[0] == "denoising_step"
    assert figures["scores"] == run.folder / "figures" / "scores.png"
    assert {path.name for path in files["tables"]} == {"summary.csv", "best.csv", "best.md", "best.tex"}
    assert files["probes"] == [run.folder / "probes" / "bank.txt"]


def test_a_page_is_written_and_holds_the_recorded_configuration(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("seed: 0 # <all>\n")
    publish(make_report(), **vars(MadeUpRun(tmp_path)))
    page = (tmp_path / "report.html").read_text()
    assert "seed: 0 # &lt;all&gt;" in page
    assert "python train.py" in page


def test_frames_that_move_are_a_file_for_the_tracker_and_no_picture_of_the_page(tmp_path):
    run = MadeUpRun(tmp_path, MadeUpTracker())
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    publish(replace(make_report(), figures={"moving": Animation(frames)}), **vars(run))
    assert run.tracker.logged[1]["moving"].suffix == ".gif"
    assert "Figures" not in (tmp_path / "report.html").read_text()


def test_names_in_square_brackets_are_printed_as_they_are():
    assert "- a[b] :smile:" in report_text(replace(make_report(), findings=["a[b] :smile:"]))


def test_findings_under_a_heading_stand_below_it():
    text = report_text(replace(make_report(), findings=[Headed("depth", ["First.", "Second."]), "Of all."]))
    assert text.endswith("depth\n- First.\n- Second.\n- Of all.\n")
