"""Classes of a property and of a model that have the same name, and what to do without one."""

import pytest

from diffprobe.errors import UserError
from diffprobe.labels.class_names import class_named, class_names, classes_named, numbers_in, short_names

IMAGENET = ["tench, Tinca tinca", "tiger", "tiger cat", "lemon", "crane", "crane"]
ADE = ["wall", "person, individual", "sky", "screen door, screen", "screen, projection screen"]


def test_a_class_is_found_by_any_of_its_names_in_any_case():
    assert class_named("TINCA tinca", IMAGENET) == 0
    assert class_named("tench, tinca tinca", IMAGENET) == 0
    assert class_named("cat", IMAGENET) is None


def test_a_whole_name_goes_before_a_first_synonym_and_that_before_others():
    classes = ["screen door, screen", "screen, projection screen", "crt screen", "Screen"]
    assert class_named("screen", classes) == 3
    assert class_named("screen", classes[:3]) == 1
    assert class_named("screen", classes[:1]) == 0
    assert classes_named("crane", IMAGENET) == [4, 5]
    assert classes_named("cat", IMAGENET) == []


def test_classes_get_the_numbers_of_the_property_whatever_their_order_case_and_synonym():
    assert numbers_in("mine", ["Sky", "INDIVIDUAL", "wall"], ADE) == [2, 1, 0, -1, -1]
    assert numbers_in("mine", ["screen", "screen door"], ADE) == [-1, -1, -1, 1, 0]
    assert numbers_in("mine", ["projection screen", "wall"], ADE) == [1, -1, -1, -1, 0]


def test_other_stands_for_what_is_not_listed_unless_the_model_has_such_a_class():
    assert numbers_in("mine", ["other", "sky"], ADE) == [0, 0, 1, 0, 0]
    assert numbers_in("mine", ["sky", "Other"], ADE) == [1, 1, 0, 1, 1]
    assert numbers_in("mine", ["other", "sky"], [*ADE, "other"]) == [-1, -1, 1, -1, -1, 0]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["sky", "persons"], "property mine: the model knows no class 'persons' among its 5; did you mean person?"),
        (["sky", "zebra"], "property mine: the model knows no class 'zebra' among its 5; such as wall; person, ind"),
        (["person", "individual"], "property mine: 'person' and 'individual' are one class of the model; give one of"),
    ],
)
def test_classes_that_the_model_does_not_tell_apart_are_refused(classes, message):
    with pytest.raises(UserError) as caught:
        numbers_in("mine", classes, ADE)
    assert str(caught.value).startswith(message)


def test_a_name_of_several_classes_is_refused_with_all_of_them():
    with pytest.raises(UserError, match=r"the model has 2 classes called 'bat': bat, animal; bat, club$"):
        numbers_in("mine", ["bat", "other"], ["bat, animal", "bat, club"])
    assert numbers_in("mine", ["club", "other"], ["bat, animal", "bat, club"]) == [1, 0]


def test_short_names_are_first_synonyms_where_these_are_of_one_class():
    assert short_names(ADE, "MODEL") == ["wall", "person", "sky", "screen door", "screen"]
    assert short_names(["bat, animal", "bat, club"], "MODEL") == ["bat, animal", "bat, club"]
    for names in (ADE, ["bat, animal", "bat, club"], ["bat", "bat, club"]):
        assert numbers_in("mine", short_names(names, "MODEL"), names) == [*range(len(names))]
    with pytest.raises(UserError, match="MODEL has two classes called 'Bat', so that its names do not"):
        short_names(["Bat", "bat", "sky"], "MODEL")


@pytest.mark.parametrize(
    "given", [None, {}, ["wall"], {"0": "wall"}, {"0": "a", "2": "b"}, {"0": "a", "1": " "}, {"x": "a"}]
)
def test_a_configuration_without_names_of_classes_is_refused(given):
    with pytest.raises(UserError, match=r"MODEL does not name its classes: its config\.json has no id2label"):
        class_names(given, "MODEL")


def test_names_are_in_the_order_of_their_numbers_and_of_one_line():
    assert class_names({"10": "k", **{str(number): f" a\n{number}" for number in range(10)}}, "MODEL")[9:] == [
        "a 9",
        "k",
    ]
