from pathlib import Path

import pytest

from equimark.files import replace_file, write_text


def test_writes_and_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "notes.txt"
    write_text(path, "grün\n")
    assert path.read_bytes() == "grün\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["notes.txt"]


def test_replaces(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")
    write_text(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("interruption", [OSError("No space left on device"), KeyboardInterrupt(), ValueError("odd")])
def test_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, interruption: BaseException) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ha")
        raise interruption

    with pytest.raises(type(interruption)):
        replace_file(path, half)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_the_old_file_stands_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def look(temporary: Path) -> None:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic

    replace_file(path, look)
    assert path.read_text() == "new"


def test_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("I am a file")
    with pytest.raises(OSError, match="file"):
        write_text(tmp_path / "file" / "below.txt", "text")
    assert (tmp_path / "file").read_text() == "I am a file"
