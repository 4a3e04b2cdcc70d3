"""Lists and CSV files as editors, Excel and other systems write them."""

import os

import pytest

from diffprobe.data.images import load_images
from diffprobe.data.object_selection import read_list
from diffprobe.data.prompts import read_lines, read_prompts, read_table, read_text
from diffprobe.errors import UserError
from tests.data.layouts import load_objects, some_scenes, write_davis, write_voc

TEXT = "prompts,seeds\nit\u2019s a “red” cube…,3\nün café,4\n"
WRITTEN = {
    "as it is": lambda text: text.encode(),
    "with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "with Windows' line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "with old Macs' line ends": lambda text: text.replace("\n", "\r").encode(),
    "with blank lines": lambda text: text.replace("\n", "\n\n  \n").encode(),
    "with Excel's empty rows": lambda text: (text + ",\n ,\n").encode(),
    "with spaces": lambda text: text.replace("prompts,seeds", " prompts , seeds ").replace(",3", ", 3 ").encode(),
    "in capitals": lambda text: text.replace("prompts,seeds", "Prompts,SEEDS").encode(),
    "with further columns": lambda text: text.replace("\n", ",,x\n").replace("seeds,,x", "seeds,,").encode(),
}
TOLD = {"cp1252": "Windows-1252", "utf-16": "UTF-16", "utf-16-be": "UTF-16", "utf-32": "UTF-32"}


@pytest.fixture
def told():
    return []


@pytest.mark.parametrize("how", WRITTEN)
def test_prompts_are_the_same_however_the_file_was_written(tmp_path, told, how):
    path = tmp_path / "prompts.csv"
    path.write_bytes(WRITTEN[how](TEXT))
    found = read_prompts(path, told.append)
    assert [(prompt.text, prompt.seed) for prompt in found] == [("it\u2019s a “red” cube…", 3), ("ün café", 4)]
    assert told == []


@pytest.mark.parametrize("encoding", TOLD)
def test_what_is_not_utf8_is_read_and_told(tmp_path, told, encoding):
    """0x85, the ellipsis of Windows-1252, is the end of a line in ISO-8859-1; 0x91 to 0x97 are controls there."""
    path = tmp_path / "prompts.csv"
    path.write_bytes(b"\xfe\xff" * (encoding == "utf-16-be") + TEXT.encode(encoding))
    found = read_prompts(path, told.append)
    assert [prompt.text for prompt in found] == ["it\u2019s a “red” cube…", "ün café"]
    assert len(told) == 1
    assert TOLD[encoding] in told[0]
    assert str(path) in told[0]


def test_the_first_line_read_as_windows_1252_is_shown_for_judging(tmp_path, told):
    path = tmp_path / "names.txt"
    path.write_bytes(f"plain\n{'x' * 200}caf\u00e9\n".encode("cp1252"))
    assert [line for _, line in read_lines(path, "the list", told.append)] == ["plain", "x" * 200 + "café"]
    assert "line 2" in told[0]
    assert "café" in told[0]
    with pytest.warns(UserWarning, match="Windows-1252"):
        read_text(path, "the list")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"caf\xc3\xa9\n\xc3\xa9t\xe9\n", "is UTF-8, but damaged in line 2"),
        (b"\xef\xbb\xbfa\n\xe9\n", "is UTF-8, but damaged in line 2"),  # its mark says that it is UTF-8
        (b"a\n\x81\n", r"neither UTF-8 nor Windows-1252 \(line 2\)"),
        (b"\xff\xfea", "is UTF-16, but damaged in line 1"),
        (b"a\nb\0c\n", "line 2, holds NUL bytes"),
        ("a\n".encode("utf-16-le"), "line 1, holds NUL bytes.*UTF-16"),
    ],
)
def test_what_is_no_text_is_refused_with_its_line(tmp_path, told, raw, message):
    path = tmp_path / "list.txt"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=message):
        read_text(path, "the list", told.append)
    assert told == []


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for name in ("pipe.csv", "folder.csv"):
        with pytest.raises(UserError, match="is no file"):
            read_prompts(tmp_path / name)
    with pytest.raises(UserError, match="No such file"):
        read_prompts(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("src;dataset\na;voc\n", "no column 'src'.*separated by semicolons; save it with commas"),
        ("src\tdataset\na\tvoc\n", "no column 'src'.*separated by tabs; save it with commas"),
        ('"src";"dataset"\n"a, b";voc\n', "line 1: check the quotes.*separated by semicolons"),
        ("sep=,\nsrc,dataset\na,voc\n", "Delete the line 'sep='"),
        (
            "name,dataset\na,voc\n",
            "no column 'src'; it has 'name', 'dataset'. The first line must name the columns src",
        ),
        ("", "no column 'src'; it has none"),
        ("src,dataset,Src\na,voc,b\n", "2 columns 'src'; keep one"),
        ("src,dataset\na\n", "line 2: the row does not have one value for each column"),
        ('src,dataset\n\n"a,voc\nb,voc\n', "line 3: check the quotes of this row"),
        ('src,dataset\n"a" b,voc\n', "line 2: check the quotes of this row"),
        ('src,dataset\n"a,voc\n' + "x" * 140_000, "line 2: check the quotes of this row"),
    ],
)
def test_a_table_that_is_none_is_refused_with_what_to_do(tmp_path, text, message):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(path, "the list", [["src"]], ["dataset"])


def test_rows_know_the_line_they_begin_on(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b'A,b\r\n\r\n"one\r\ntwo",2\r\n3,4\r\n')
    rows = read_table(path, "the list", [["x", "a"]], ["c", "b"])
    assert [(row.line, row.cells) for row in rows] == [(3, {"x": "one\ntwo", "b": "2"}), (5, {"x": "3", "b": "4"})]


# Every list that is read


def mangled(text: str) -> bytes:
    """With a byte order mark, Windows' line ends, blank lines and trailing spaces."""
    return ("\ufeff" + "".join(f"{line} \r\n\r\n" for line in text.splitlines())).encode()


@pytest.mark.parametrize("ending", ["txt", "csv"])
def test_lists_of_images_are_read_with_marks_and_windows_line_ends(tmp_path, ending):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    path = tmp_path / f"list.{ending}"
    path.write_bytes(mangled("SRC\n" * (ending == "csv") + "b.png\na.png"))
    assert [image.path.name for image in load_images(path)] == ["b.png", "a.png"]


@pytest.mark.parametrize("ending", ["txt", "csv"])
def test_lists_of_objects_are_read_with_marks_and_windows_line_ends(tmp_path, ending):
    path = tmp_path / f"list.{ending}"
    path.write_bytes(mangled("SRC\n" * (ending == "csv") + "b.jpg\na.jpg"))
    assert read_list(path, "voc") == ["b", "a"]


def test_lists_of_voc_and_davis_are_read_with_marks_and_windows_line_ends(tmp_path):
    scenes = some_scenes(2)
    names = write_voc(tmp_path, scenes, 16)
    write_davis(tmp_path, {"one": scenes, "two": scenes}, 16)
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainval.txt").write_bytes(mangled("\n".join(names)))
    (tmp_path / "ImageSets/2017/val.txt").write_bytes(mangled("two"))
    assert load_objects("voc", root=tmp_path)[0].names == names
    assert load_objects("davis", root=tmp_path)[0].names == ["two/00000", "two/00001"]


@pytest.mark.parametrize("kind", ["voc", "davis"])
@pytest.mark.parametrize(
    ("text", "message"),
    [("{}\n{}\n", "names {} 2 times; keep one"), ("{}  1\n", "line 1: '{}  1' is not one name")],
)
def test_a_list_of_a_set_has_one_name_a_line_once(tmp_path, kind, text, message):
    scenes = some_scenes(2)
    name = write_voc(tmp_path, scenes, 16)[0] if kind == "voc" else "two"
    write_davis(tmp_path, {"one": scenes, "two": scenes}, 16)
    place = {"voc": "VOCdevkit/VOC2012/ImageSets/Segmentation/trainval.txt", "davis": "ImageSets/2017/val.txt"}[kind]
    (tmp_path / place).write_text(text.format(name, name))
    with pytest.raises(UserError, match=message.format(name)):
        load_objects(kind, root=tmp_path)
