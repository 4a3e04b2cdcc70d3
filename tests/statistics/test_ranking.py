from __future__ import annotations

from diffprobe.statistics.differences import best_of, well_covered

Item = tuple[str, float, int]


def best(*items: Item) -> str:
    return best_of(items, lambda item: item[1], lambda item: item[2])[0]


def test_images_without_a_score_count_against_a_mean() -> None:
    assert best(("all", 0.60, 10), ("one", 0.65, 1)) == "all"
    assert best(("all", 0.60, 10), ("nine", 0.70, 9)) == "nine"  # 0.63 over all ten
    assert best(("all", 0.60, 10), ("nine", 0.65, 9)) == "all"
    assert best(("all", 0.10, 10), ("four", 0.90, 4)) == "all"  # less than half


def test_they_never_make_a_mean_better() -> None:
    assert best(("all", -0.2, 10), ("one", -0.1, 1)) == "all"
    assert best(("all", -0.2, 10), ("six", -0.3, 6)) == "all"


def test_the_only_ones_are_ranked_among_themselves() -> None:
    assert best(("a", 0.2, 1), ("b", 0.3, 1)) == "b"
    assert best(("a", 0.0, 0), ("b", -0.3, 3)) == "b"


def test_the_first_of_equals_is_the_best() -> None:
    assert best(("a", 0.2, 5), ("b", 0.2, 5)) == "a"


def test_what_is_of_half_as_many_is_covered_well() -> None:
    assert well_covered([10, 5, 4], lambda n: n) == [10, 5]
    assert well_covered([], lambda n: n) == []
