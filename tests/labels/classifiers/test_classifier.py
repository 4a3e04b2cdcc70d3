"""Which class a text names."""

import pytest

from diffprobe.errors import UserError
from diffprobe.labels.classifiers import checked_patterns, class_in_text
from diffprobe.labels.pocket import PocketClassifier

IMAGENET = ["tench, Tinca tinca", "tiger", "tiger cat", "lemon", "crane", "crane"]
POCKET = PocketClassifier.classes


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a Lemon on a plate", "lemon"),
        ("a tinca tinca", "tench, Tinca tinca"),
        ("a tiger cat asleep", "tiger cat"),
        ("a tiger and a tiger cat", None),
        ("two lemons", None),
        ("a crane", None),
        ("", None),
    ],
)
def test_the_words_of_one_class_decide_and_a_name_within_a_longer_one_does_not_count(text, name):
    place = class_in_text(text, IMAGENET, {})
    assert (None if place is None else IMAGENET[place]) == name


def test_a_caption_of_one_object_names_its_class_and_one_of_two_names_none():
    assert POCKET[class_in_text("a red cube", POCKET, {}) or 0] == "red cube"
    assert class_in_text("a red cube to the left of a blue cone", POCKET, {}) is None
    assert class_in_text("a red cube to the left of a red cube", POCKET, {}) is None


def test_the_first_pattern_that_is_found_goes_before_the_words():
    patterns = {"citrus|lemons": "lemon", "lemons": "tiger"}
    assert class_in_text("two Lemons beside a tench", IMAGENET, patterns) == 3
    assert class_in_text("a tench", IMAGENET, patterns) == 0


def test_a_pattern_of_an_unknown_class_and_a_broken_one_are_refused():
    with pytest.raises(UserError, match="knows no class 'dog'"):
        checked_patterns({"dog": "dog"}, IMAGENET, "tiny")
    with pytest.raises(UserError, match="no regular expression"):
        checked_patterns({"(": "lemon"}, IMAGENET, "tiny")
