from __future__ import annotations

import hashlib

import pytest

from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats import charset as charsets
from tfos_job.formats.charset import Charset


def test_level_1_is_the_whole_of_it_in_its_order() -> None:
    level1 = charsets.level1()
    assert len(level1) == 3755
    assert "".join(level1.characters[:5]) == "啊阿埃挨哎"
    assert level1.characters[-1] == "座"
    assert level1.tags[0] == b"\xb0\xa1"
    assert level1.tags[-1] == b"\xd7\xf9"
    assert charsets.level1(30).characters == level1.characters[:30]


def test_ids_characters_and_tags_belong_together() -> None:
    charset = charsets.from_file("\ufeff一 二\r\n三\n镕!\n")
    assert charset.characters == ("一", "二", "三", "镕", "!")
    assert charset.class_ids["三"] == 2
    assert charset.class_ids_by_tag["镕".encode("gbk")] == 3  # in GBK, not in GB2312
    assert charset.class_ids_by_tag[b"!\0"] == 4


def test_found_characters_give_the_same_ids_in_any_order() -> None:
    assert charsets.from_characters("三一二一").digest == charsets.from_characters("一二三").digest
    assert Charset(("一", "二")).digest != Charset(("二", "一")).digest


def test_names_of_any_length_have_no_tag_and_a_digest_of_their_own() -> None:
    names = charsets.from_lines("\ufeffcat\r\n\n  big dog \n一\n", "names")
    assert names.characters == ("cat", "big dog", "一")
    assert [row["tag"] for row in names.to_json()["classes"]] == [None, None, "d2bb"]
    assert Charset.from_json(names.to_json()) == names
    assert names.sequence == ["cat", "big dog", "一"]
    assert charsets.from_lines("一\n二").sequence == "一二"
    with pytest.raises(SettingsError, match="character 1: 'cat' is not a character of GBK"):
        _ = names.tags
    assert Charset(("一", "😀")).to_json()["classes"][1]["tag"] is None
    with pytest.raises(SettingsError, match="names: character 2, 'cat', is there twice"):
        charsets.from_lines("cat\ncat", "names")
    for bad in ("", "a\nb", "a\n"):
        with pytest.raises(SettingsError, match=r"class 2, .* is empty or has a line end in it"):
            Charset(("cat", bad))


def test_a_digest_is_of_one_charset_alone() -> None:
    # Of single characters it is what it always was: datasets and checkpoints of before go on.
    assert Charset(("一", "二")).digest == hashlib.sha256("一二".encode()).hexdigest()
    others = [("ab", "c"), ("a", "bc"), ("abc",), ("a", "b", "c"), ("c", "ab"), ("a\tb", "c")]
    assert len({Charset(names).digest for names in others}) == len(others)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "holds no characters"),
        ("一二一", "character 3, '一', is there twice"),
        ("一😀", "character 2: '😀' is not"),
    ],
)
def test_a_bad_file_is_refused_with_the_place(text: str, fact: str) -> None:
    with pytest.raises(SettingsError, match=fact) as raised:
        charsets.from_file(text, place="classes.txt")
    assert raised.value.place == "classes.txt"


def test_json_comes_back_and_changes_by_hand_are_seen() -> None:
    value = charsets.level1(3).to_json()
    assert value["classes"][1] == {"id": 1, "character": "阿", "tag": "b0a2"}
    assert Charset.from_json(value) == charsets.level1(3)
    value["classes"][1]["character"] = "一"
    with pytest.raises(BadDataError, match="do not fit"):
        Charset.from_json(value)
    value["classes"][1]["character"] = 7
    for wrong in (["一"], value):
        with pytest.raises(BadDataError, match="not a charset"):
            Charset.from_json(wrong)
