"""`labels-csv`: a CSV file labels the images of a folder, in columns of any name."""

import shutil
import unicodedata
from pathlib import Path

import pytest

from tests.unit.training import synthetic_images
from training.data import manifest as manifests
from training.data import prepare
from training.data.datasets import Collection, collect
from training.recipe import Data, LabelsCsv
from visionserve.errors import BundleError

NAMES = ("a.png", "b.png", "deep/c.png", "d.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        synthetic_images.image((60 * number, 90, 40), number).save(tmp_path / name)
    return tmp_path


def read(root: Path, text: str, **csv: str) -> Collection:
    settings = LabelsCsv(**csv)
    (root / settings.name).write_text(text, encoding="utf-8")
    return collect("labels-csv", root, csv=settings)


def test_files_labels_accepted_labels_and_groups_are_read(root: Path) -> None:
    text = "file,index,label,accept,source\na.png,1,rose,1;0,shop\nb.png,0,dahlia,,me\ndeep/c.png,1,rose,dahlia,shop\n"
    found = read(root, text)
    assert found.labels == ("dahlia", "rose")  # by position
    assert [(p.path, p.label, p.accept, p.group) for p in found.images] == [
        ("a.png", "rose", ("dahlia",), "shop"),
        ("b.png", "dahlia", (), "me"),
        ("deep/c.png", "rose", ("dahlia",), "shop"),
    ]
    assert found.others == ("d.png",)


@pytest.mark.parametrize(
    ("text", "csv"),
    [
        ("id;breed\na;rose\nb;dahlia\n", {"file": "id", "label": "breed"}),
        ("image\tclass\tgroup\na.png\trose\t1\nb.png\tdahlia\t2\n", {"file": "image", "label": "class"}),
        ('\ufefffile,label\n"a.png","rose"\n"b.png",dahlia\n', {}),
        ("label , file\r\nrose,a.png\r\ndahlia,b.png\r\n", {"name": "train.csv"}),
    ],
)
def test_columns_separators_and_names_are_those_that_are_told(root: Path, text: str, csv: dict[str, str]) -> None:
    for name in ("a", "b"):
        shutil.copy(root / f"{name}.png", root / f"{name}.jpg")
    found = read(root, text, **csv)
    assert found.labels == ("dahlia", "rose")
    assert [image.label for image in found.images] == ["rose", "dahlia"]


def test_images_may_lie_in_a_folder_below_and_lines_may_hold_splits(root: Path) -> None:
    shutil.copy(root / "d.png", root / "deep" / "d.png")
    found = read(root, "file,label,split\nc.png,rose,valid\nd.png,dahlia,train\n", folder="deep")
    assert [(p.path, p.split) for p in found.images] == [("deep/c.png", "val"), ("deep/d.png", "train")]


def test_positions_count_in_the_labels_that_are_given(root: Path) -> None:
    (root / "labels.csv").write_text("file,index\na.png,2\nb.png,0\n", encoding="utf-8")
    found = collect("labels-csv", root, csv=LabelsCsv(), labels=("iris", "lily", "rose"))
    assert [image.label for image in found.images] == ["rose", "iris"]
    assert found.labels == ("iris", "rose")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,label\na.png,rose\n", r"has no column 'file' but name, label: .*csv\.file"),
        ("file,kind\na.png,rose\n", r"has no column 'label' but file, kind: .*csv\.label"),
        ("file,index\na.png,1\n", r"positions but no names of labels"),
        ("", r"is empty: its first line names the columns"),
        ("file,label\n", r"lists no images"),
        ("file,label\nx.png,rose\n", r"line 2 has x\.png, which is not in"),
        ("file,label\n../a.png,rose\n", r"line 2 has the file '\.\./a\.png': it must lie below"),
        ("file,label\na.png,rose\na.png,rose\n", r"line 3 has a\.png again"),
        ("file,label,index\na.png,rose,1\nb.png,dahlia,1\n", r"line 3 has 'dahlia' at '1'"),
        ("file,label,accept\na.png,rose,tulip\n", r"line 2 has 'tulip', which is none of the 1 labels"),
        ("file,label,split\na.png,rose,later\n", r"line 2 has the split 'later'"),
    ],
)
def test_what_cannot_be_right_is_named_with_its_line(root: Path, text: str, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        read(root, text)


def test_a_column_that_was_told_must_be_there(root: Path) -> None:
    with pytest.raises(BundleError, match=r"no column 'site' but file, label: .*csv\.group"):
        read(root, "file,label\na.png,rose\n", group="site")


def test_a_position_that_contradicts_the_label_is_named(root: Path) -> None:
    (root / "labels.csv").write_text("file,label,index\na.png,rose,0\n", encoding="utf-8")
    with pytest.raises(BundleError, match=r"line 2 has 'rose' at 0; its position is 1"):
        collect("labels-csv", root, csv=LabelsCsv(), labels=("iris", "rose"))


def test_images_that_are_not_listed_are_named_as_such(tmp_path: Path) -> None:
    root, _ = labelled(tmp_path)
    synthetic_images.image((9, 9, 200), 4711).save(root / "new.png")
    _, left_out = prepare.make(Data(source="labels-csv", root=str(root)))
    assert [(file.path, file.reason) for file in left_out] == [("new.png", "not in the list of labels")]


def test_a_manifest_keeps_accepted_labels_and_groups(tmp_path: Path) -> None:
    root, _ = labelled(tmp_path)
    manifest, _ = prepare.make(Data(source="labels-csv", root=str(root), split="by-group"))
    manifest.save(tmp_path / "manifest.csv")
    again = manifests.load(tmp_path / "manifest.csv", root, manifest.labels)
    assert again == manifest
    assert any(row.accept for row in again.rows)
    assert {len(indices) for indices in again.accepted()} == {1, 2}


def labelled(folder: Path, groups: int = 24) -> tuple[Path, int]:
    """Write a folder of images of three colours from several sources with its labels.csv."""
    return synthetic_images.labelled_folder(folder / "labelled", groups)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,rose\nb.png,rose\n", "has one label only, 'rose'"),
        ("file,label\na.png,rose\nb.png,\nd.png,\n", "line 3 has no label for 'b.png'"),
        ("file,label\na.png,rose\nb.png\n", "line 3 has no label for 'b.png'"),
        ("file,label\na.png,rose\nb.png,red, white rose\n", "line 3 has more entries than there are columns"),
        ("file,label,label\na.png,rose,1\nb.png,dahlia,1\n", "has several columns 'label'"),
        ('file,label\na.png,"ro\nse"\nb.png,dahlia\n', r"the label 'ro\\nse' has a line break"),
        ("file,label\na.png,rose\n/elsewhere/b.png,dahlia\n", "must lie below"),
    ],
)
def test_a_table_that_would_be_read_wrongly_is_refused(root: Path, text: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read(root, text)


def test_two_unicode_forms_are_one_label_and_absolute_paths_below_the_folder_are_taken(root: Path) -> None:
    one, other = (unicodedata.normalize(form, "rosé") for form in ("NFC", "NFD"))
    found = read(root, f"file,label,more\n{root}/a.png,{one},\nb.png,{other},,\ndeep/c.png,dahlia,x\n")
    assert found.labels == ("dahlia", one)
    assert [image.path for image in found.images] == ["a.png", "b.png", "deep/c.png"]


def test_a_split_for_some_images_only_names_one_without(root: Path) -> None:
    text = "file,label,split\na.png,rose,train\nb.png,dahlia,\nd.png,rose,test\n"
    for how in ("given", "given-test"):
        (root / "labels.csv").write_text(text, encoding="utf-8")
        with pytest.raises(BundleError, match=r"1 image of 3 without a split, b\.png among them"):
            prepare.make(Data(source="labels-csv", root=str(root), split=how))
