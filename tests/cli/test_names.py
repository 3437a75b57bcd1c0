"""Which stream each file of ``penstock put`` goes to."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from penstock.cli.put import names_for


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder/sub").mkdir()
    (tmp_path / "folder/link").symlink_to("nowhere")
    for name in ("a.txt", "b.txt", "folder/c.txt", "folder/sub/.d"):
        (tmp_path / name).write_text(name)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.txt"], [("a.txt", "a.txt")]),
        (["folder/c.txt"], [("folder/c.txt", "c.txt")]),
        (["./a.txt"], [("./a.txt", "a.txt")]),
        (["a.txt", "name"], [("a.txt", "name")]),
        (["a.txt", "some/name"], [("a.txt", "some/name")]),
        (["a.txt", "folder"], [("a.txt", "folder")]),
        (["a.txt", "b.txt"], [("a.txt", "a.txt"), ("b.txt", "b.txt")]),
        (["a.txt", "some/"], [("a.txt", "some/a.txt")]),
        (["a.txt", "folder/"], [("a.txt", "folder/a.txt")]),
        (["a.txt", "folder/c.txt", "x/y/"], [("a.txt", "x/y/a.txt"), ("folder/c.txt", "x/y/c.txt")]),
        (["-", "name"], [("-", "name")]),
        (["folder"], [("folder/c.txt", "folder/c.txt"), ("folder/sub/.d", "folder/sub/.d")]),
        (["folder/"], [("folder/c.txt", "folder/c.txt"), ("folder/sub/.d", "folder/sub/.d")]),
        (["folder", "name"], [("folder/c.txt", "name/c.txt"), ("folder/sub/.d", "name/sub/.d")]),
        (["folder", "x/"], [("folder/c.txt", "x/folder/c.txt"), ("folder/sub/.d", "x/folder/sub/.d")]),
        (
            ["folder", "folder/sub"],
            [*[("folder/c.txt", "folder/c.txt"), ("folder/sub/.d", "folder/sub/.d")], ("folder/sub/.d", "sub/.d")],
        ),
        (["a.txt", "b.txt", "folder/sub"], [("a.txt", "a.txt"), ("b.txt", "b.txt"), ("folder/sub/.d", "sub/.d")]),
        (["a.txt", "folder/sub", "x/"], [("a.txt", "x/a.txt"), ("folder/sub/.d", "x/sub/.d")]),
    ],
)
def test_names(arguments: list[str], expected: list[tuple[str, str]]) -> None:
    assert names_for(arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["none.txt"], "no file 'none.txt'"),
        (["none.txt", "name"], "no file 'none.txt'"),
        (["a.txt", "none.txt", "x/"], "no file 'none.txt'"),
        (["a.txt", "b.txt", "name"], "end it with '/'"),
        (["empty"], "no files"),
        (["-"], "needs a NAME"),
        (["a.txt", "-"], "needs a NAME"),
        (["-", "some/"], "needs a NAME"),
    ],
)
def test_what_is_refused(arguments: list[str], text: str) -> None:
    with pytest.raises(click.UsageError, match=text):
        names_for(arguments)
