"""What is reported of separation: curves for the tracker, heat maps, tables."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from diffprobe.analyses.separation.report import report
from diffprobe.files import NO_STEP
from diffprobe.prototypes.separation import SeparationResults
from tests.report.made_up_analysis import ENCODER, FIRST, make_objects, make_sets, make_tests


def make_report(sets, tests=()):
    prototypes = SimpleNamespace(objects=make_objects(), vanished={(8, 8): ["image#0"]})
    backbone = SimpleNamespace(name="pocket", denoiser=SimpleNamespace(config={}), image_size=64)
    images = SimpleNamespace(kind="scenes")
    task: Any = SimpleNamespace(backbone=backbone, images=images, inputs=[], problems=[], changes=[], examples=0)
    collected: Any = SimpleNamespace(unchanged=prototypes, changed=[], evaluations=0)
    return report(task, collected, SeparationResults(list(sets), list(tests)))


@pytest.fixture(scope="module")
def whole():
    places = [(layer, step) for layer in (ENCODER, FIRST) for step in (0, 1)]
    return make_report(
        [row for place in places for row in make_sets(*place)], [row for place in places for row in make_tests(*place)]
    )


def test_every_layer_and_measure_has_curves_of_its_own_over_the_step(whole):
    first, second = whole.scalars.to_dict("records")
    assert [first["denoising_step"], second["denoising_step"]] == [1, 2]
    assert first["pearson/encoder16/auc"] == 0.71
    assert second[f"pearson/{FIRST}/scdi_low"] == pytest.approx(0.59)
    assert first["pearson/encoder16/knn_accuracy_high"] == 0.7
    assert "pearson/encoder16/order_holds_low" not in first


def test_models_are_told_apart_and_rows_of_no_step_have_none():
    sets = make_sets(step=NO_STEP)
    scalars = make_report([*sets, *(replace(row, model="other") for row in sets)]).scalars
    assert scalars["other/pearson/encoder16/scdi"].tolist() == [0.61]
    assert scalars["denoising_step"].isna().all()


def test_a_cell_of_the_map_tells_its_auc_the_sets_and_the_tests(whole):
    (heat,) = whole.heatmaps
    cell = heat.cells[ENCODER, 0]
    assert (cell.value, cell.low) == (0.71, pytest.approx(0.67))
    assert "scdi 0.610 [0.590, 0.630]" in cell.notes[0]
    assert "in order" in cell.notes[1]


def test_the_tables_of_a_run_folder_have_stable_names(whole):
    files = {name for name, table in whole.tables.items() if "csv" in table.show}
    assert files == {"objects", "vanished", "problems", "sets", "tests", "tables/means", "tables/pairs"}
    assert whole.tables["vanished"].data["object"].tolist() == ["image#0"]
