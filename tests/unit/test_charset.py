from __future__ import annotations

import pytest

from tfos_job.data import charset as charsets
from tfos_job.data.charset import Charset
from tfos_job.errors import BadDataError, SettingsError


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
    with pytest.raises(BadDataError, match="not a charset"):
        Charset.from_json(["一"])
