"""The papers' tables: published and own numbers beside each other, never mixed."""

import csv
from dataclasses import replace

import pytest

from diffprobe.analyses.separation.findings import separation_cells
from diffprobe.analyses.separation.published import published_means, published_tests
from diffprobe.analyses.separation.report import means_table, pairs_table, separation_tables
from diffprobe.prototypes.sets import PAIRS, SETS
from diffprobe.report.publish import report_text, write_tables
from diffprobe.report.report import Report
from diffprobe.report.tables import lines_of
from tests.report.made_up_analysis import ENCODER, FIRST, MEANS, make_sets, make_tests


def test_published_and_this_runs_means_stand_beside_each_other_and_the_caption_says_whose():
    found = separation_cells([*make_sets(), *make_sets(FIRST, means={**MEANS, "scsi": None})])

    table = means_table(found, "voc", published_means("voc"))

    assert table.title == (
        "Mean ± standard deviation of the distances, pearson: published (Stable Diffusion) / this run (pocket, voc)."
    )
    assert lines_of(table)[0] == ["layer", *SETS]
    assert lines_of(table)[1][1:3] == ["0.42 ± 0.10 / 0.42 ± 0.10", "0.61 ± 0.13 / 0.61 ± 0.10"]
    assert lines_of(table)[2][1] == "0.42 ± 0.10 / \N{EN DASH}"


def test_nothing_published_stands_beside_another_measure_timestep_or_data_set():
    sets = make_sets()
    cosine = separation_cells([replace(row, measure="cosine") for row in sets])
    noisy = separation_cells([replace(row, timestep=500.0) for row in sets])

    for found in (cosine, noisy):
        assert lines_of(means_table(found, "voc", published_means("voc")))[1][1] == "\N{EN DASH} / 0.42 ± 0.10"
    means = separation_tables(separation_cells(sets), "scenes", published=True)["tables/means"]
    assert lines_of(means)[1][1] == "0.42 ± 0.10"
    assert "published" not in means.title


def test_misprints_are_kept_marked_and_explained():
    found = separation_cells(make_sets("64"), make_tests("64"))
    means = means_table(found, "voc", published_means("voc"))
    pairs = pairs_table(separation_cells(make_sets(), make_tests()), "voc", published_tests("voc"))

    assert lines_of(means)[1][3].startswith("0.18 ± 0.18* / ")
    assert means.notes == [
        "* printed so, probably 0.18 ± 0.08 (64: dcsi)",
        "* printed so, probably 0.21 ± 0.08 (64: dcdi)",
    ]
    assert lines_of(pairs)[5][2] == "1.5e-31* / 3.2e-436"
    assert pairs.notes == ["* printed so, probably 1.5e-51 (encoder16: scsi vs dcdi)"]


def test_pairs_of_sets_have_p_and_dunn_index_by_measure():
    measures = ("euclidean", "pearson", "distance_correlation")
    found = separation_cells(
        [row for name in measures for row in make_sets("all", measure=name)],
        [row for name in measures for row in make_tests("all", measure=name)],
    )

    lines = lines_of(pairs_table(found, "coco", published_tests("coco")))

    assert lines[0] == ["sets", "metric", *measures]
    assert lines[1] == ["scsi vs scdi", "p", "1.4e-45 / 3.2e-436", "2.3e-53 / 3.2e-436", "\N{EN DASH} / 3.2e-436"]
    assert lines[2][1:4] == ["Dunn index", "0.35941 / 0.10000", "0.50012 / 0.10000"]
    assert lines[9][2] == "0 / 3.2e-436"  # the papers' underflow
    assert len(lines) == 1 + 2 * len(PAIRS)


def test_a_table_of_many_columns_is_printed_on_its_side():
    places = [(ENCODER, step) for step in range(9)]
    found = separation_cells([], [row for place in places for row in make_tests(*place)])

    lines = lines_of(pairs_table(found, "scenes"))

    assert [line[0] for line in lines] == ["sets", "metric", *(f"step {step + 1}" for step in range(9))]
    assert lines[2][1:3] == ["3.2e-436", "0.10000"]


def test_the_csv_has_full_precision_and_the_published_numbers_apart(tmp_path):
    found = separation_cells([replace(row, mean=1 / 3) for row in make_sets()], make_tests())

    write_tables(Report("", tables=separation_tables(found, "voc", published=True)), tmp_path)

    folder = tmp_path / "tables"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{kind}" for name in ("means", "pairs") for kind in ("csv", "md", "tex")
    }
    with (folder / "means.csv").open() as file:
        (means,) = csv.DictReader(file)
    with (folder / "pairs.csv").open() as file:
        pairs = list(csv.DictReader(file))
    assert float(means["scsi mean"]) == 1 / 3
    assert (means["layer"], means["scsi published mean"], means["dcdi published std"]) == (ENCODER, "0.42", "0.11")
    assert pairs[0] == {
        "sets": "scsi vs scdi", "metric": "p", "encoder16": "3.2e-436", "encoder16 published": "6.7e-29",
    }  # fmt: skip
    assert (folder / "means.md").read_text().startswith("Mean ± standard deviation of the distances, encoder16")
    assert r"0.42 $\pm$ 0.10 / 0.33 $\pm$ 0.10" in (folder / "means.tex").read_text()
    assert r"$1.5 \times 10^{-31}$*" in (folder / "pairs.tex").read_text()


def test_on_the_console_a_line_a_layer_and_step_fits_100_columns():
    sets = [*make_sets(), *make_sets(FIRST, 14, means={**MEANS, "scsi": None})]
    tests = [*make_tests(), *make_tests(FIRST, 14, share=1.0)]

    text = report_text(Report("", tables=separation_tables(separation_cells(sets, tests), "scenes", published=False)))

    assert max(map(len, text.splitlines())) <= 100
    cells = {line.split()[0]: line.split() for line in text.splitlines() if "[" in line and "-" not in line}
    assert cells["encoder16"] == [
        *("encoder16", "1", "0.42", "0.61", "0.74", "0.81", "yes", "0.03*", "0.71", "[0.67,", "0.75]", "0.003*"),
        *("0.45", "0.64"),
    ]  # fmt: skip
    assert cells["down"][:5] == ["down", "2.0", "15", "empty", "0.61"]


def test_measures_have_a_closing_table_each_and_one_explanation():
    sets = [*make_sets(), *(replace(row, measure="cosine") for row in make_sets())]
    text = report_text(Report("", tables=separation_tables(separation_cells(sets), "scenes", published=False)))
    assert "pearson: Distances of object prototypes" in text
    assert "cosine: Distances of object prototypes" in text
    assert " ".join(text.split()).count("*: adjusted after Holm") == 1


class TestPublished:
    """What the numbers must obey if they were copied rightly."""

    @pytest.mark.parametrize("dataset", ["voc", "coco"])
    def test_dunn_indices_of_a_column_agree_with_each_other(self, dataset):
        # Means enter only as differences and sizes as the larger of two radii, so that one of six values follows
        # from the others. Of all printed columns this holds within rounding; a wrong digit breaks it.
        for column, pairs in published_tests(dataset).items():
            d12, _, d14, d23, d24, d34 = (pairs[pair].dunn for pair in PAIRS)
            between = d12 - d23 if (dataset, column[0]) == ("coco", "all") else d12 + d23  # scdi is above dcsi there
            ratio = (d14 - d34) / between
            assert (d14 - ratio * d12) / max(ratio, 1) == pytest.approx(d24, abs=3e-5), column

    def test_tables_are_complete(self):
        for dataset in ("voc", "coco"):
            assert len(published_means(dataset)) == 8
            assert len(published_tests(dataset)) == 7
        assert published_means("scenes") == published_tests("scenes") == {}

    def test_the_order_holds_in_print_where_the_paper_says_so(self):
        for dataset in ("voc", "coco"):
            for setup in ("encoder16", FIRST):
                means = [row.mean for row in published_means(dataset)[setup].values()]
                assert means == sorted(means)
        assert published_means("coco")["all"]["scdi"].mean > published_means("coco")["all"]["dcsi"].mean
