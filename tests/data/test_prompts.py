"""Prompt files as the papers publish them, and prompts of the scene grammar."""

import pytest

from diffprobe.data.prompts import Prompt, duplicate_prompts, load_prompts, read_prompts, scene_prompts
from diffprobe.errors import UserError
from diffprobe.pocket.scenes import COLOURS, SHAPES

# Rows as in the papers' files: UTF-8, doubled quotes, commas inside quotes.
PAPERS_FILE = (
    "prompts,seeds,prompt_inds\r\n"
    '"""""""36"""""""" Electric Cooktop with 5 Elements and Knob Controls - Black""""""",30918977,5091175\r\n'
    "Carbo Harken Winch Triple/émerillon/taquet 150 57 mm,28943888,4834596\r\n"
    '"Herders with a yak team. Big Pamir, Afghanistan.",63270105,7094682\r\n'
).encode()


@pytest.fixture
def papers_file(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_bytes(PAPERS_FILE)
    return path


def write(tmp_path, text: str):
    path = tmp_path / "prompts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_papers_quoting_is_read(papers_file):
    cooktop, winch, herders = read_prompts(papers_file)
    assert cooktop.text == '"""36"""" Electric Cooktop with 5 Elements and Knob Controls - Black"""'
    assert winch == Prompt(
        "Carbo Harken Winch Triple/émerillon/taquet 150 57 mm", 28943888, "prompt_4834596_seed_28943888"
    )
    assert herders.text == "Herders with a yak team. Big Pamir, Afghanistan."


def test_rows_without_index_are_numbered(tmp_path):
    prompts = read_prompts(write(tmp_path, "prompts,seeds\na,3\nb,4\n"))
    assert [prompt.name for prompt in prompts] == ["prompt_0_seed_3", "prompt_1_seed_4"]


def test_a_count_takes_the_first_rows(papers_file):
    assert len(load_prompts(papers_file)) == 3
    assert [prompt.seed for prompt in load_prompts(papers_file, 2)] == [30918977, 28943888]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,seeds\na,3\n", "no column 'prompts'.*'prompt', 'seeds'"),
        ("prompts,seeds\n", "no prompts"),
        ("prompts,seeds\na,x\n", "line 2: the seed 'x'"),
        ("prompts,seeds\na,-1\n", "line 2: the seed '-1'"),
        ("prompts,seeds\na,3.0\n", "line 2: the seed '3.0' is not a whole number"),
        ("prompts,seeds\na,1_0\n", "line 2: the seed '1_0'"),
        ("prompts,seeds\na,\u00b2\n", "line 2: the seed '\u00b2'"),
        ("prompts,seeds\na,\u0663\n", "line 2: the seed '\u0663'"),
        ("prompts,seeds\na,\n", "line 2: the seed ''"),
        (f"prompts,seeds\na,{2**63}\n", "line 2: the seed '9223372036854775808'"),
        (f"prompts,seeds\na,{'9' * 5000}\n", r"line 2: the seed '9{60}\.\.\.'"),
        ("prompts,seeds,prompt_inds\na,1,\u00b2\n", "line 2: the prompt index '\u00b2'"),
        ("prompts,seeds,prompt_inds\na,1,\nb,1,7\n", "line 2: the prompt index ''"),
        ("prompts,seeds\na,1,2\n", "line 2: .* one value for each column"),
        ("prompts,seeds\na\n", "line 2: .* one value for each column"),
        ("prompts,seeds,prompt_inds\na,1,one\n", "line 2: the prompt index 'one'"),
        ("prompts,seeds,prompt_inds\na,1,7\nb,1,7\n", "2 images 'prompt_7_seed_1'"),
    ],
)
def test_a_bad_file_is_an_error_that_says_where(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_prompts(write(tmp_path, text))


def test_seeds_up_to_the_largest_are_read_and_so_are_leading_zeros(tmp_path):
    prompts = read_prompts(write(tmp_path, f"prompts,seeds\na,{2**63 - 1}\nb,007\nc,{'0' * 5000}8\n"))
    assert [prompt.seed for prompt in prompts] == [2**63 - 1, 7, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,1\n,2\n", "1 of 2 prompts are empty, first in line 3"),
        ("a,1\nit\u0092s,2\n", "1 of 2 prompts hold control or replacement characters, first in line 3"),
        ("caf\ufffd,1\n", "1 of 1 prompts hold control or replacement characters, first in line 2"),
    ],
)
def test_odd_prompts_are_told(tmp_path, text, message):
    told = []
    read_prompts(write(tmp_path, f"prompts,seeds\n{text}"), told.append)
    assert len(told) == 1
    assert message in told[0]


def test_a_missing_file_and_an_impossible_count_are_errors(tmp_path, papers_file):
    with pytest.raises(UserError, match=r"nothere\.csv"):
        load_prompts(tmp_path / "nothere.csv")
    with pytest.raises(UserError, match="only 3 prompts"):
        load_prompts(papers_file, 4)
    with pytest.raises(UserError, match="at least 1"):
        load_prompts(None, 0)


def test_scene_prompts_speak_the_grammar_and_depend_on_the_seed():
    prompts = scene_prompts(30, seed=1)
    words = {word.strip(",") for prompt in prompts for word in prompt.text.split()}
    assert words & set(COLOURS)
    assert words <= {*COLOURS, *SHAPES, *["a", "to", "the", "left", "right", "of", "and", "from"]}
    assert len({prompt.name for prompt in prompts}) == 30
    assert scene_prompts(30, seed=1) == prompts
    assert not {prompt.seed for prompt in scene_prompts(30, seed=2)} & {prompt.seed for prompt in prompts}


def test_without_a_file_two_hundred_scenes_are_the_default():
    assert len(load_prompts()) == 200


@pytest.mark.parametrize("again", ["a red cube,5,9", "A red  cube ,5,9"])
def test_one_picture_under_two_indices_is_refused(tmp_path, again):
    path = write(tmp_path, f"prompts,seeds,prompt_inds\na red cube,5,1\na red cube,6,1\na red cone,5,3\n{again}\n")
    with pytest.raises(UserError, match=r"1 of 4 prompts .*prompt_9_seed_5, which has those of prompt_1_seed_5"):
        read_prompts(path)


def test_pictures_that_another_file_has_are_found_under_any_name():
    one, other = Prompt("a red cube", 5, "prompt_1_seed_5"), Prompt("a Red cube", 5, "prompt_2_seed_5")
    assert duplicate_prompts([other, Prompt("a red cube", 6, "x")], [one]) == [(one, other)]
    assert duplicate_prompts([one, other, one]) == [(one, other)]
    assert duplicate_prompts([], [one, other]) == []
