import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.protocols.disposition import content_disposition, filename_from


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (None, "attachment"),
        ("", "attachment"),
        ("  ", "attachment"),
        ("report.pdf", 'attachment; filename="report.pdf"'),
        ("two words; and=more.txt", 'attachment; filename="two words; and=more.txt"'),
        ("naïve.txt", "attachment; filename=\"naive.txt\"; filename*=UTF-8''na%C3%AFve.txt"),
        ("€ rates", "attachment; filename=\"_ rates\"; filename*=UTF-8''%E2%82%AC%20rates"),
        ('a"b.txt', 'attachment; filename="a\\"b.txt"; filename*=UTF-8\'\'a%22b.txt'),
        ("50%41.txt", "attachment; filename=\"50%41.txt\"; filename*=UTF-8''50%2541.txt"),
        ("a/b\\c.txt", 'attachment; filename="a_b_c.txt"'),
        ("../../etc/passwd", 'attachment; filename=".._.._etc_passwd"'),
        ("x\r\nSet-Cookie: a=b", 'attachment; filename="x__Set-Cookie: a=b"'),
        ("cv\u202efdp.exe", 'attachment; filename="cv_fdp.exe"'),
        ("a\0b\x7f\x85c\u2028d\udc80", 'attachment; filename="a_b__c_d_"'),
        (".", 'attachment; filename="_"'),
        ("..", 'attachment; filename="__"'),
    ],
)
def test_names_are_written(name: str | None, value: str) -> None:
    assert content_disposition(name) == value


def test_inline_is_written_too() -> None:
    assert content_disposition(None, "inline") == "inline"
    assert content_disposition("a.png", "inline") == 'inline; filename="a.png"'


def test_look_alikes_of_quotes_and_separators_do_not_become_them() -> None:
    plain = content_disposition("a\uff02b\uff0fc\uff3cd\u2100.txt").partition(";")[2].partition(";")[0]
    assert plain == ' filename="a_b_c_d_.txt"'


def test_a_long_name_keeps_its_suffix_and_whole_characters() -> None:
    name = filename_from(content_disposition("é" * 500 + ".tar.gz"))
    assert name is not None
    assert re.fullmatch(r"é+\.tar\.gz|é+\.gz", name)
    assert 250 <= len(name.encode()) <= 255
    assert filename_from(content_disposition("a." + "b" * 500)) == "a." + "b" * 253


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters()), st.sampled_from(["attachment", "inline"]))
def test_whatever_the_name_the_value_is_one_printable_ascii_line_that_reads_back(name: str, kind: str) -> None:
    value = content_disposition(name, "inline" if kind == "inline" else "attachment")
    assert re.fullmatch(r"[\x20-\x7e]+", value)
    read = filename_from(value)
    if read is None:
        assert value == kind
    else:
        assert content_disposition(read, "inline" if kind == "inline" else "attachment") == value


@settings(deadline=None)
@given(st.from_regex(r"\A[\w(\"%'*;=,][\w (\"%'*;=,.]{0,20}\w\Z"))
def test_harmless_names_survive_unchanged(name: str) -> None:
    assert filename_from(content_disposition(name)) == name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        # RFC 6266 section 5
        ("Attachment; filename=example.html", "example.html"),
        ('INLINE; FILENAME= "an example.html"', "an example.html"),
        ("attachment; filename*= UTF-8''%e2%82%ac%20rates", "€ rates"),
        ("attachment; filename=\"EURO rates\"; filename*=utf-8''%e2%82%ac%20rates", "€ rates"),
        # RFC 8187 section 3.2.3
        ("attachment; filename*=iso-8859-1'en'%A3%20rates", "£ rates"),
        ("attachment; filename*=UTF-8''%c2%a3%20and%20%e2%82%ac%20rates", "£ and € rates"),
        ("attachment; filename*=UTF-8''a.txt; filename=b.txt", "a.txt"),
        ("attachment;filename=a.txt", "a.txt"),
        ("attachment ; size=5 ; filename = a.txt ;", "a.txt"),
        (r'attachment; filename="a\"b\\c.txt"', "c.txt"),
        (r'attachment; filename="a\"b.txt"', 'a"b.txt'),
        ('attachment; x="filename=no; y"; filename="yes; really"', "yes; really"),
        ("attachment; filename=first; filename=second", "first"),
        ("attachment; filename=größe.txt", "größe.txt"),
    ],
)
def test_names_are_read(value: str, name: str) -> None:
    assert filename_from(value) == name


@pytest.mark.parametrize(
    "extended",
    [
        "UTF-8''%ff",
        "UTF-8''%e2%82",
        "UTF-8''%zz",
        "ascii''a",
        "utf-16''a",
        "i\u017fo-8859-1''a",
        "a",
        "UTF-8''",
    ],
)
def test_a_malformed_extended_name_gives_way_to_the_plain_one(extended: str) -> None:
    assert filename_from(f"attachment; filename=plain; filename*={extended}") == "plain"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ("attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("attachment; filename*=UTF-8''c%3A%5Cautoexec.bat", "autoexec.bat"),
        ('attachment; filename="/"', None),
        ('attachment; filename="a/.."', None),
        ('attachment; filename="."', None),
        ('attachment; filename=" .. "', None),
        ('attachment; filename=""', None),
        ("attachment; filename*=UTF-8''%2e%2e; filename=ok", "ok"),
        ("attachment; filename*=UTF-8''a%00b%0d%0ac", "a_b__c"),
        ("attachment; filename*=UTF-8''%e2%80%aefdp.exe", "_fdp.exe"),
        ("attachment", None),
        ("", None),
        (";;;", None),
        ("attachment; filename", None),
        ('attachment; filename="unterminated', None),
    ],
)
def test_hostile_values_give_a_safe_name_or_none(value: str, name: str | None) -> None:
    assert filename_from(value) == name


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from("ab./\\\"';=*% \t\0\n\u202e") | st.characters()))
def test_any_value_gives_a_safe_name_or_none(text: str) -> None:
    for value in (text, f"attachment; filename={text}", f'a; filename="{text}"', f"a; filename*=UTF-8''{text}"):
        name = filename_from(value)
        if name is not None:
            assert name not in {"", ".", ".."}
            assert not set(name) & set("/\\\0\r\n\u202e")
            assert len(name.encode()) <= 255


def test_hostile_values_are_read_in_linear_time() -> None:
    began = time.perf_counter()
    for value in (
        "a;" + " " * 300_000,
        "a" + ";" * 300_000,
        'a; x="' + "\\" * 300_000,
        'a; x="' + 'b"; x="' * 50_000,
        "a; filename*=UTF-8''" + "%41" * 200_000 + "%",
    ):
        filename_from(value)
    content_disposition("a." * 300_000)
    assert time.perf_counter() - began < 5
