from __future__ import annotations

from collections import Counter

import pytest

from tfos_job.conversion import folders
from tfos_job.conversion.folders import FoundFile, ImageFile, ImageListing
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.formats import charset


def found(*names: str) -> list[FoundFile]:
    return [FoundFile(name, 10 + number, 1.5) for number, name in enumerate(names)]


def listed(names: list[str], labels: dict[str, str] | None = None) -> ImageListing:
    return folders.listed(found(*names), labels, "in", "labels.csv")


def test_the_class_is_the_folder_that_an_image_lies_in() -> None:
    listing = listed(["b/cat/1.PNG", "a/dog/x.jpeg", "cat/2.gif", "cat/notes.txt"])
    assert [(file.name, file.label) for file in listing.files] == [
        ("a/dog/x.jpeg", "dog"),
        ("b/cat/1.PNG", "cat"),
        ("cat/2.gif", "cat"),
    ]
    assert (listing.num_other_files, listing.files_per_class) == (1, {"cat": 2, "dog": 1})
    with pytest.raises(BadDataError, match=r"1 images lie in no folder that names their class, such as 1\.png"):
        listed(["1.png", "cat/1.png"])
    with pytest.raises(BadDataError, match="not UTF-8"):
        listed(["cat/\udcff.png"])


def test_what_notebooks_and_disks_keep_beside_images_is_no_class() -> None:
    litter = [
        "cat/.ipynb_checkpoints/1-checkpoint.png",
        "dog/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/cat/1.png",
        ".thumbnails/cat/1.png",
        "cat/._1.png",
        ".ipynb_checkpoints/\udcff.png",
    ]
    listing = listed([*litter, "_cat/_1.png", "cat/1.png", "@dog/2.png"])
    assert sorted(listing.files_per_class) == ["@dog", "_cat", "cat"]
    assert sorted(listing.hidden) == sorted([*litter[:-1], r".ipynb_checkpoints/\xff.png"])
    assert listing.num_other_files == 6
    assert listing.left_out_texts == [
        "6 left out by name, which is hidden, or of a hidden folder: .ipynb_checkpoints × 2, .* × 1, "
        ".thumbnails × 1, @eaDir × 1, __MACOSX × 1; such as .ipynb_checkpoints/\\xff.png"
    ]
    # Who names one wants it.
    listing = listed([*litter[:-1], "cat/1.png"], {litter[0]: "cat", "cat/1.png": "cat"})
    assert (len(listing.files), listing.num_unlisted, len(listing.hidden)) == (2, 0, 4)


def test_what_is_left_out_by_its_ending_is_told() -> None:
    listing = listed(["cat/1.png", "cat/2.WEBP", "cat/3.webp", "notes.txt", "cat/Makefile", ".DS_Store", "\udcff.x"])
    assert listing.left_out_texts == [
        "6 left out by name, which does not end with .png, .jpg, .jpeg, .gif: .webp × 2, without an ending × 2, "
        ".txt × 1, .x × 1; such as .DS_Store"
    ]
    assert (
        listed([f"{number}.{number}" for number in range(10)] + ["a/1.png"])
        .left_out_texts[0]
        .endswith(".6 × 1, .7 × 1 and 2 more kinds; such as 0.0")
    )
    assert listed(["cat/1.png"]).left_out_texts == []


def test_a_class_is_one_however_its_name_is_encoded() -> None:
    listing = listed(["cafe\u0301/1.png", "caf\xe9/2.png", " caf\xe9/3.png", "dog /4.png", "\uf92c/5.png"])
    assert listing.files_per_class == {"caf\xe9": 3, "dog": 1, "\uf92c": 1}  # the last one: GNT's, and not \u90de
    assert listing.merged == ("caf\xe9",)
    assert folders.parse_labels("1.png,cafe\u0301 \n", "l") == {"1.png": "caf\xe9"}
    assert charset.from_lines(" cafe\u0301\ndog \n").characters == ("caf\xe9", "dog")
    with pytest.raises(BadDataError, match="no folder that names their class"):
        listed([" /1.png"])


def test_labels_find_files_however_their_names_are_encoded() -> None:
    names = ["cafe\u0301/ 1.png", "a.png", " a.png"]
    listing = listed(names, {"caf\xe9/ 1.png": "x", "a.png": "y"})
    assert {file.name: file.label for file in listing.files} == {names[0]: "x", "a.png": "y"}
    with pytest.raises(SettingsError, match=r"labels\.csv: .*is there twice"):
        listed(names, {"caf\xe9/ 1.png": "x", names[0]: "y"})


def test_labels_leave_out_what_they_do_not_name_and_name_nothing_that_is_not_there() -> None:
    listing = listed(["1.png", "x/2.png", "3.png"], {"1.png": "cat", "x/2.png": "dog"})
    assert ([file.label for file in listing.files], listing.num_unlisted) == (["cat", "dog"], 1)
    with pytest.raises(
        MissingInputError, match=r"labels\.csv: 1 of its 2 files are no images below in, such as 4\.png"
    ):
        listed(["1.png"], {"1.png": "cat", "4.png": "cat"})


@pytest.mark.parametrize(
    "text", ["\ufeffpath,class\r\na/1.png,cat\r\n\r\n./b.gif, big dog \r\n", 'a/1.png,cat\nb.gif,"big dog"']
)
def test_labels_are_csv_with_a_header_or_without(text: str) -> None:
    assert folders.parse_labels(text, "l") == {"a/1.png": "cat", "b.gif": "big dog"}


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "l: names no images"),
        ("path,class\n", "l: names no images"),
        ("a.png,cat\nb.png\n", r"l, line 2: expected a path and a class, found 'b\.png'"),
        ("a.png,cat,3\n", "l, line 1: expected a path and a class"),
        ("a.png,\n", "l, line 1: expected a path and a class"),
        ("a.png,cat\n./a.png,cat\n", r"l, line 2: a\.png is there twice"),
    ],
)
def test_bad_labels_are_refused_with_their_line(text: str, fact: str) -> None:
    with pytest.raises(SettingsError, match=fact):
        folders.parse_labels(text, "l")


def test_a_listing_is_another_one_when_anything_is() -> None:
    file = ImageFile("cat/1.png", 10, 1.5, "cat")
    before = ImageListing((file,))
    others = [file._replace(name="cat/2.png"), file._replace(size_bytes=9), file._replace(mtime_s=2.0)]
    digests = {before.sha256, *(ImageListing((other,)).sha256 for other in (*others, file._replace(label="dog")))}
    assert len(digests) == 5
    assert ImageListing((file,), num_unlisted=3).sha256 == before.sha256

    def words(*files: ImageFile) -> list[str]:
        return folders.changes(ImageListing(files), 1, before.size_bytes, before.files_per_class)

    assert words(file._replace(mtime_s=2.0)) == ["names, classes or times of its 1 images are others"]
    assert words(file._replace(size_bytes=9)) == ["its images have 9 bytes, had 10"]
    assert words(file, others[0])[0] == "cat has 2 images, had 1"
    assert words(file._replace(label="dog")) == ["cat has 0 images, had 1", "dog has 1 images, had 0"]


def test_every_shard_has_its_share_of_every_class() -> None:
    names = [(f"{label}/{number}.png", label) for label in ("a", "b", "c") for number in range(80)]
    files = [ImageFile(name, 900 + number % 200, 0.0, label) for number, (name, label) in enumerate(names)]
    groups = folders.deal(files, 1 << 30)
    assert sorted(file for group in groups for file in group) == sorted(files)
    assert [Counter(file.label for file in group) for group in groups] == [{"a": 10, "b": 10, "c": 10}] * 8
    sizes = [sum(file.size_bytes for file in group) for group in groups]
    assert max(sizes) < 1.1 * min(sizes)
    # Not one class after the other, and the same again, whatever order they come in.
    assert all(len({file.label for file in group[:8]}) > 1 for group in groups)
    assert folders.deal(files[::-1], 1 << 30) == groups
    assert len(folders.deal(files, 10_000)) == -(-sum(sizes) // 10_000)


def test_few_files_are_few_shards() -> None:
    files = [ImageFile(f"{label}/1.png", 10, 0.0, label) for label in "abc"]
    assert [len(group) for group in folders.deal(files, 1)] == [1, 1, 1]
