"""Trackers of analyses: scalars over the step, and what an offline run of W&B holds."""

import csv
import json
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from diffprobe.analyses.separation.console import separation_scalars
from diffprobe.analyses.separation.findings import findings
from diffprobe.report.style import save_figure
from diffprobe.report.tracking import CsvTracker, WandbTracker
from diffprobe.tables import NO_STEP
from tests.report.made_up_analysis import ENCODER, FIRST, make_drift, make_sets, make_tests
from tests.report.test_tracking import exit_codes, history, home, records  # noqa: F401


def found():
    places = [(layer, step) for layer in (ENCODER, FIRST) for step in (0, 1)]
    sets = [row for place in places for row in make_sets(*place)]
    return findings(sets, [row for place in places for row in make_tests(*place)])


class TestScalars:
    def test_every_layer_and_measure_has_keys_of_its_own_over_the_step(self):
        rows = separation_scalars(found())

        assert [row["denoising_step"] for row in rows] == [1, 2]
        assert rows[0]["pearson/encoder16/auc"] == 0.71
        assert rows[1][f"pearson/{FIRST}/scdi_low"] == pytest.approx(0.59)
        assert rows[0]["pearson/encoder16/knn_accuracy_high"] == 0.7
        assert "pearson/encoder16/order_holds_low" not in rows[0]

    def test_models_are_told_apart_and_rows_of_no_step_have_none(self):
        sets = make_sets(step=NO_STEP)

        (row,) = separation_scalars(findings([*sets, *(replace(row, model="other") for row in sets)]))

        assert row["other/pearson/encoder16/scdi"] == 0.61
        assert "denoising_step" not in row


def test_without_a_service_the_scalars_are_a_csv_file(tmp_path):
    with CsvTracker(tmp_path) as tracker:
        tracker.log_tables({"sets": make_sets()}, curves=separation_scalars(found()))

    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["pearson/encoder16/auc"] for row in rows] == ["0.71", "0.71"]
    assert tracker.describe() == f"curves: {tmp_path / 'curves.csv'}"


@pytest.mark.slow
def test_an_offline_run_holds_tables_figures_artifacts_and_scalars(tmp_path, home):  # noqa: F811
    figure = Figure(figsize=(1, 1))
    figure.add_subplot()
    table = tmp_path / "sets.csv"
    table.write_text("a\n1\n")
    sets = make_sets(step=NO_STEP)
    tables = {"sets": sets, "tests": make_tests(), "drift": make_drift({"flip": [1]}), "problems": []}

    with WandbTracker(tmp_path) as tracker:
        tracker.log_tables(
            tables,
            {"separation": save_figure(figure, tmp_path / "figures", "separation")["png"]},
            {"tables": [table], "prototypes": [table]},
            separation_scalars(found()),
        )

    assert exit_codes(tmp_path) == [0]
    rows = history(tmp_path)
    assert [row["denoising_step"] for row in rows if "pearson/encoder16/auc" in row] == [1, 2]
    media = list(tmp_path.glob("wandb/offline-run-*/files/media/**/*"))
    assert any("figures/separation" in str(path) for path in media)
    assert all(path.parent.name == "tables" for path in media if path.suffix == ".json")
    logged = {path.name.split("_")[0]: json.loads(path.read_text()) for path in media if path.suffix == ".json"}
    assert set(logged) == {"sets", "tests", "drift"}
    assert logged["sets"]["columns"][:6] == ["model", "layer", "step", "timestep", "measure", "set"]
    assert logged["sets"]["data"][0][:3] == ["pocket", ENCODER, None]
    assert len(logged["tests"]["data"]) == len(make_tests())
    artifacts = {r.artifact.type: r.artifact for r in records(tmp_path) if r.WhichOneof("record_type") == "artifact"}
    assert {"tables", "prototypes"} <= set(artifacts)
    assert artifacts["prototypes"].name.startswith("prototypes-")
