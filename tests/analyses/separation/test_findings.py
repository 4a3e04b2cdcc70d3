"""What is claimed of separation, and what is not."""

from dataclasses import replace

from diffprobe.analyses.separation.findings import chance_accuracy, separation_cells, separation_lines
from tests.report.made_up_analysis import ENCODER, MEANS, make_objects, make_sets, make_tests


def one(lines: list[str], part: str) -> str:
    (line,) = [line for line in lines if part in line]
    return line


class TestOrder:
    def test_it_holds_by_means_with_intervals_and_a_test(self):
        lines = separation_lines(separation_cells(make_sets(), make_tests(share=0.97)))

        assert lines[0] == (
            "encoder16, step 1: scsi < scdi < dcsi < dcdi holds by means (scsi 0.42 [0.40, 0.44], scdi 0.61 [0.59, "
            "0.63], dcsi 0.74 [0.72, 0.76], dcdi 0.81 [0.79, 0.83]); shown, p = 0.03 that it does not hold."
        )
        unsure = separation_lines(separation_cells(make_sets(), make_tests(share=0.9)))
        assert unsure[0].endswith("; not shown, p = 0.1 that it does not hold.")

    def test_without_a_test_it_is_no_verdict(self):
        tests = [replace(row, p=None) if row.statistic == "order_holds" else row for row in make_tests()]

        line = separation_lines(separation_cells(make_sets(), tests))[0]

        assert line.endswith("; that is no verdict, since a set has pairs in less than 5 images.")

    def test_what_breaks_it_is_named(self):
        sets = make_sets(means={**MEANS, "scdi": 0.75})

        lines = separation_lines(separation_cells(sets, make_tests(share=0.04)))

        assert "does not hold by means: scdi is not below dcsi (" in lines[0]
        assert "shown" not in lines[0]

    def test_an_empty_set_is_named_with_its_reason_and_the_order_is_not_claimed(self):
        lines = separation_lines(separation_cells(make_sets(means={**MEANS, "scsi": None})))

        assert lines[0].startswith("scsi is empty: no image shows two objects of one class.")
        assert "of the sets that are not empty, scdi < dcsi < dcdi holds by means" in lines[1]

    def test_many_layers_and_steps_are_told_of_together(self):
        places = [(ENCODER, step) for step in range(10)]
        broken = {**MEANS, "dcsi": 0.9}
        sets = [row for layer, step in places for row in make_sets(layer, step, means=broken if step > 5 else MEANS)]
        tests = [row for layer, step in places for row in make_tests(layer, step, share=0.99 if step == 3 else 0.5)]

        line = one(separation_lines(separation_cells(sets, tests)), "The order")

        assert "holds by means at 6 of 10 (layer, step), and is shown at 1 of these (p at most 0.05 after Holm)" in line
        assert "most surely at encoder16, step 4 (p = 0.01)." in line

    def test_an_order_that_is_shown_nowhere_is_nowhere_sure(self):
        places = [(ENCODER, step) for step in range(10)]
        sets = [row for layer, step in places for row in make_sets(layer, step)]
        tests = [row for layer, step in places for row in make_tests(layer, step, share=0.7 if step == 3 else 0.5)]

        line = one(separation_lines(separation_cells(sets, tests)), "The order")

        assert "is shown at 0 of these (p at most 0.05 after Holm); the smallest p is" in line
        assert "at encoder16, step 4." in line


class TestClasses:
    def test_nearness_is_claimed_if_interval_and_adjusted_p_agree(self):
        line = one(separation_lines(separation_cells(make_sets(), make_tests(p=0.001))), "one class in")

        assert line == (
            "encoder16, step 1: objects of one class in different images are nearer than objects of different classes "
            "(AUC 0.71 [0.67, 0.75], block permutation p = 0.001, 0.003 after Holm)."
        )

    def test_it_is_not_claimed_on_either_alone(self):
        adjusted = make_tests(p=0.03)  # 0.09 after Holm
        near_chance = make_tests(auc=0.52)

        for tests in (adjusted, near_chance):
            assert "are not shown to be nearer" in one(
                separation_lines(separation_cells(make_sets(), tests)), "one class in"
            )

    def test_without_a_permutation_nothing_is_claimed(self):
        tests = [row for row in make_tests() if row.statistic != "permutation_between_images"]

        assert "are not shown to be nearer" in one(
            separation_lines(separation_cells(make_sets(), tests)), "one class in"
        )

    def test_few_images_have_no_interval_and_no_verdict(self):
        tests = [replace(row, low=None, high=None) for row in make_tests(p=0.001)]

        lines = separation_lines(separation_cells(make_sets(), tests), make_objects("aabbcc"))

        assert "are not shown to be nearer" in one(lines, "one class in")
        assert "a set has pairs in less than 5 images, so no verdict is given" in one(lines, "one class in")
        assert "less than 5 images have objects, so it is not compared with chance" in one(lines, "The nearest")


class TestRetrieval:
    def test_it_is_held_against_the_most_frequent_class(self):
        found = separation_cells(make_sets(), make_tests())

        above = one(separation_lines(found, make_objects("aabbcc")), "The nearest")
        below = one(separation_lines(found, make_objects("aaaaab")), "The nearest")

        assert above == (
            "The nearest object of another image is of the same class for 0.64 [0.58, 0.70] of the objects at "
            "encoder16, step 1 (mean average precision 0.45 [0.41, 0.49]), above the 0.33 of always naming the most "
            "frequent class."
        )
        assert "not shown to be above the 0.83" in below
        assert chance_accuracy([]) is None


def test_vanished_objects_are_counted_and_named_by_resolution():
    names = [f"image#{at}" for at in range(5)]

    lines = separation_lines(separation_cells(make_sets()), make_objects(), {(8, 8): names, (16, 16): []})

    assert lines[-1] == (
        "At 8\N{MULTIPLICATION SIGN}8, 5 of 6 objects belong to no cell and are left out: image#0, image#1, image#2 "
        "and 2 others."
    )
    assert not any("16\N{MULTIPLICATION SIGN}16" in line for line in lines)


def test_measures_are_told_apart():
    sets = make_sets()
    lines = separation_lines(separation_cells([*sets, *(replace(row, measure="cosine") for row in sets)]))

    assert [line.split(":")[0] for line in lines] == ["pearson", "cosine"]
