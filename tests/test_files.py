from pathlib import Path

import pytest

from equimark.files import kept_aside, replace_file, replace_folder, write_csv, write_text


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


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    write_csv(path, ("name", "x"), (row for row in [("grün, or not", 1.5), ("latin\udce9", None)]))
    assert path.read_bytes() == 'name,x\n"grün, or not",1.5\n'.encode() + b"latin\xe9,\n"
    with pytest.raises(ZeroDivisionError):
        write_csv(path, ("name", "x"), ((k, 1 / k) for k in (1, 0)))
    assert path.read_bytes().startswith(b"name") and [p.name for p in path.parent.iterdir()] == ["table.csv"]


def test_a_folder_takes_its_place_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder"
    for text in ("first", "second"):
        before = path.exists()
        with replace_folder(path) as folder:
            write_text(folder / "notes.txt", text)
            assert path.exists() == before
        assert (path / "notes.txt").read_text() == text
        assert [p.name for p in path.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize("interruption", [OSError("No space left on device"), KeyboardInterrupt(), ValueError("odd")])
def test_interrupted_filling_leaves_the_old_folder_and_nothing_else(
    tmp_path: Path, interruption: BaseException
) -> None:
    path = tmp_path / "folder"
    write_text(path / "notes.txt", "old")
    with pytest.raises(type(interruption)), replace_folder(path) as folder:
        write_text(folder / "notes.txt", "new")
        raise interruption
    assert (path / "notes.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, usual = tmp_path / "folder", Path.rename
    write_text(path / "notes.txt", "old")

    def rename(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise PermissionError("held by another program")
        return usual(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PermissionError), replace_folder(path) as folder:
        write_text(folder / "notes.txt", "new")
    assert (path / "notes.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_is_replaced_is_kept_aside(tmp_path: Path) -> None:
    path, folder = tmp_path / "found.csv", tmp_path / "found"
    with kept_aside(path, folder) as copies:
        assert copies == []
    path.write_text("first")
    write_text(folder / "a.pts", "points")
    for n in (1, 2):
        with kept_aside(path, folder) as copies:
            assert copies == [tmp_path / f"found.earlier-{n}.csv", tmp_path / f"found.earlier-{n}"]
            path.write_text("second")
    assert [(tmp_path / f"found.earlier-{n}.csv").read_text() for n in (1, 2)] == ["first", "second"]
    assert (tmp_path / "found.earlier-1" / "a.pts").read_text() == "points"


def test_nothing_is_kept_aside_when_nothing_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    path.write_text("first")
    with pytest.raises(OSError, match="full"), kept_aside(path):
        raise OSError("full")
    assert [each.name for each in tmp_path.iterdir()] == ["found.csv"]
