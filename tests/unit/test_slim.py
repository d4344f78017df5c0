"""Records of TF-Slim's, and what their labels mean."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from tests.unit import slim_records
from tfos_job.errors import SettingsError
from tfos_job.formats import slim
from tfos_job.formats.slim_labels import FoundLabels, LabelFile, classes_of, parse_labels
from tfos_job.formats.tf_example import decode_features


def test_records_of_slims_programs_are_read_whatever_else_is_in_them() -> None:
    flower = slim.read_record(slim_records.of_flowers(3, 2))
    assert flower == slim.SlimRecord(2, "", slim_records.picture(3), "jpeg", "")
    data = slim_records.of_imagenet(5, 7, "red fox,\n Vulpes vulpes")
    assert slim.read_record(data) == slim.SlimRecord(
        7, "red fox, Vulpes vulpes", slim_records.picture(5), "jpeg", "n00000007_5.JPEG"
    )
    bare = {"image/format": None, "image/height": None, "image/width": None}
    png = slim_records.picture(1, "PNG")
    # Slim's readers do not trust image/format either.
    for changes in ({"image/format": b"JPEG"}, bare):
        assert (
            slim.read_record(slim_records.of_flowers(1, 0, **{"image/encoded": png}, **changes)).image_format == "png"
        )


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"image/class/label": None}, "no feature image/class/label"),
        ({"image/class/label": b"3"}, "image/class/label is of type bytes, expected int64"),
        ({"image/class/label": [1, 2]}, "image/class/label has 2 values, expected one"),
        ({"image/class/label": []}, "image/class/label has 0 values, expected one"),
        ({"image/class/label": 1.5}, "image/class/label is a list of floats, expected int64"),
        ({"image/class/label": -1}, "image/class/label is -1, expected a class id of 0 to"),
        ({"image/class/label": 1 << 40}, f"image/class/label is {1 << 40}, expected a class id of 0 to"),
        ({"image/encoded": None}, "no feature image/encoded"),
        ({"image/encoded": b""}, "image/encoded is empty"),
        ({"image/encoded": b"BM" + bytes(50)}, r"no JPEG, PNG or GIF, but a BMP \(image/format says jpg\)"),
        ({"image/format": b"raw"}, "image/format is raw"),
        ({"image/height": [1, 2]}, "image/height has 2 values, expected one"),
    ],
)
def test_what_training_could_not_parse_is_refused(changes: dict[str, Any], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        slim.read_record(slim_records.of_flowers(1, 0, **changes))


@pytest.mark.parametrize("data", [b"", b"\x00", b"no Example", b"\n\xff\xff"])
def test_bytes_that_are_no_example_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no feature|field|number"):
        slim.read_record(data)


def test_lists_are_decoded_as_tensorflow_encodes_them() -> None:
    values = {"a": [1, -1, 1 << 40], "b": [b"x", b""], "c": [0.5], "d": [], "e": [b""]}
    data = slim_records.example(values)
    assert decode_features(data, "abcde") == {"a": [1, -1, 1 << 40], "b": [b"x", b""], "c": None, "d": [], "e": [b""]}
    assert decode_features(data, "b") == {"b": [b"x", b""]}
    unset = tf.train.Example(features=tf.train.Features(feature={"a": tf.train.Feature()})).SerializeToString()
    assert decode_features(unset, "a") == {}


# --- labels ----------------------------------------------------------------------------------------------------------

NAMES = ("tench", "crane", "rose")


def listed(*names: str) -> LabelFile:
    return parse_labels("\n".join(names), "labels.txt")


def found(*labels: int, texts: dict[int, str] | None = None) -> FoundLabels:
    return FoundLabels(dict.fromkeys(labels, 5), texts or {})


def test_both_forms_of_label_files_are_read() -> None:
    numbered = parse_labels("\ufeff0:daisy\n2: wild: rose \n\n1:tulip\n", "l")
    assert (numbered.names, numbered.is_numbered) == ({0: "daisy", 1: "tulip", 2: "wild: rose"}, True)
    plain = parse_labels("daisy\r\n\r\nwild: rose\r\n", "l")
    assert (plain.names, plain.is_numbered) == ({0: "daisy", 1: "wild: rose"}, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n \n", "names no classes"),
        ("0:a\nb\n", "l, line 2: 'b' is a name alone"),
        ("a\n1:b\n", "l, line 2: '1:b' is ID:NAME"),
        ("0:a\n0:b\n", "l, line 2: id 0 is there twice"),
        ("0:a\n1: \n", "l, line 2: the name is empty"),
        ("9999999:a\n", "l, line 1: 9999999 is larger than"),
    ],
)
def test_label_files_that_say_no_classes(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse_labels(text, "l")


def test_class_ids_are_the_labels_and_ids_give_their_names() -> None:
    numbered = LabelFile({1: "tench", 2: "crane", 4: "crane"}, True, "l")
    classes = classes_of(found(1, 2), numbered, None)
    assert classes.names == ("background", "tench", "crane (2)", "3", "crane (4)")
    assert classes.warnings == ("no name is given for label 0: class 0 is 'background', and has no records",)
    assert classes_of(found(1, 3, 7), numbered, None).unknown == (3, 7)
    again = classes_of(found(1), numbered, classes.names)
    assert again.names == classes.names


def test_a_list_of_names_begins_at_label_1_where_the_records_say_so() -> None:
    shifted = ("background", *NAMES)
    # The last label is too large for the list.
    classes = classes_of(found(1, 2, 3), listed(*NAMES), None)
    assert classes.names == shifted
    assert "so the first name of labels.txt is that of label 1" in classes.warnings[0]
    # The texts say so, or that it is not so, whatever labels are there.
    assert classes_of(found(1, 2, texts={1: "tench"}), listed(*NAMES), None).names == shifted
    assert classes_of(found(1, 2, texts={1: "crane", 2: "rose"}), listed(*NAMES), None) == classes_of(
        found(1, 2, texts={1: "crane", 2: "rose"}), listed(*NAMES), NAMES
    )
    # The dataset's other splits say so.
    assert classes_of(found(1, 2), listed(*NAMES), shifted).names == shifted
    assert classes_of(found(1, 2), listed(*NAMES), NAMES).names == NAMES
    # Nothing does.
    doubtful = classes_of(found(1, 2), listed(*NAMES), None)
    assert (doubtful.names, doubtful.unknown) == (NAMES, ())
    assert "no record has label 0, which is taken for the first name of labels.txt, 'tench'" in doubtful.warnings[0]
    assert classes_of(found(0, 1), listed(*NAMES), None).warnings == ()
    assert classes_of(found(0, 3), listed(*NAMES), None).unknown == (3,)


def test_a_label_file_that_is_off_by_one_is_told() -> None:
    numbered = LabelFile(dict(enumerate(NAMES)), True, "l")
    off = classes_of(found(1, 2, texts={1: "tench", 2: "crane"}), numbered, None)
    assert off.warnings == (
        "l seems to be off by one against the records, for 2 labels: label 1 is 'crane' in l, and 'tench' in "
        "image/class/text of its records",
    )
    other = classes_of(found(0, 1, texts={0: "Tinca tinca", 1: "crane"}), numbered, None)
    assert other.warnings[0].startswith("1 labels have another name in the records: label 0 is 'tench' in l")


def test_without_a_label_file_texts_or_numbers_are_the_names() -> None:
    by_text = classes_of(found(1, 3, texts={1: "tench", 3: "rose"}), None, None)
    assert by_text.names == ("background", "tench", "2", "rose")
    by_number = classes_of(found(0, 2, texts={0: "tench"}), None, None)
    assert by_number.names == ("0", "1", "2")
    assert "there is no label file" in by_text.warnings[0]
    assert "there is no label file" in by_number.warnings[0]
    of_dataset = classes_of(found(0, 5), None, NAMES)
    assert (of_dataset.names, of_dataset.unknown, of_dataset.warnings) == (NAMES, (5,), ())


@pytest.mark.parametrize(
    ("names", "words"),
    [(("tench", "heron", "rose"), "class 1 is 'heron', in the dataset it is 'crane'"), (NAMES[:2], "names 2 classes")],
)
def test_other_names_than_the_datasets_are_refused(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        classes_of(found(0), listed(*names), NAMES)
