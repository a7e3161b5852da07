import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from equimark.formats import read, write
from equimark.landmarks import LandmarkError, LandmarkTable
from landmark_tables import NAN, assert_same, small_table


def table_of(text: str | bytes, folder, name: str = "t.csv") -> LandmarkTable:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(folder / name)


# ---- reading


def test_numbered_columns_in_any_order_others_ignored(tmp_path):
    table = table_of(
        "y1,x1,image,age,x0,y0,splits,c1,c0\n4,3,a.jpg,old,1,2.5,train,.9,.8\n\n,,b.jpg,,-1,2e1,test,,\n", tmp_path
    )
    assert table.images == ("a.jpg", "b.jpg") and table.names is None and table.splits == ("train", "test")
    np.testing.assert_array_equal(table.points, [[[1, 2.5], [3, 4]], [[-1, 20], [NAN, NAN]]])
    np.testing.assert_array_equal(table.confidence, [[0.8, 0.9], [NAN, NAN]])
    assert table.visible.tolist() == [[True, True], [True, False]] and table.points.dtype == np.float64


def test_eleven_landmarks_keep_their_numbers(tmp_path):
    header = ",".join(f"x{k},y{k}" for k in reversed(range(11)))
    table = table_of(f"image,{header}\na,{','.join(f'{k},0' for k in reversed(range(11)))}\n", tmp_path)
    assert table.points[0, :, 0].tolist() == list(range(11)) and table.confidence is None and table.splits is None


def test_named_columns(tmp_path):
    table = table_of("image,nose_x,nose_y,nose_c,left eye_x,left eye_y,box_c\na,1,2,0.5,3,4,7\n", tmp_path)
    assert table.names == ("nose", "left eye")
    np.testing.assert_array_equal(table.points, [[[1, 2], [3, 4]]])
    np.testing.assert_array_equal(table.confidence, [[0.5, NAN]])


@pytest.mark.parametrize(
    "content",
    [
        "image,x0,y0\ncafé.jpg,1,2\n".encode(),
        "image,x0,y0\ncafé.jpg,1,2\n".encode("utf-8-sig"),
        "image,x0,y0\r\ncafé.jpg,1,2\r\n".encode("latin-1"),
        'image , x0,y0,,\r\n"café.jpg", 1 ,2 ,,\r\n,,,,\r\n'.encode(),
    ],
)
def test_what_spreadsheets_make_of_a_file(tmp_path, content):
    table = table_of(content, tmp_path)
    assert table.images == ("café.jpg",) and table.points.tolist() == [[[1, 2]]]


def test_nan_and_blanks_are_not_visible(tmp_path):
    assert not table_of("image,x0,y0,x1,y1\na,nan,NaN, ,\n", tmp_path).visible.any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; write a header"),
        ("image\tx0\ty0\na\t1\t2\n", "separate columns by commas, not by tabs"),
        ("file,x0,y0\na,1,2\n", "no column 'image'"),
        ("image;x0;y0\na;1;2\n", "not by ';'"),
        ("image,age\na,1\n", "no landmark columns"),
        ("image,x0,y0,x1\na,1,2,3\n", "missing columns: 'y1'"),
        ("image,x1,y1,x2,y2\na,1,2,3,4\n", "'x0', 'y0'; .*counted from 0"),
        ("image,nose_x,tail_y\na,1,2\n", "'nose_y', 'tail_x'"),
        ("image,x0,y0,x0\na,1,2,3\n", "more than once: 'x0'"),
        ("image,x0,y0\n", "no rows"),
        ("image,x0,y0\na,1,2\n\nb,1\n", "line 4: 2 cells, but the header has 3"),
        ("image,x0,y0\na,1,2\nb,1,2,3\n", "line 3: 4 cells"),
        ("image,x0,y0\na,1,2\nb,1,2\na,1,2\n", "line 4: 'a' again, after line 2"),
        ("image,x0,y0\n,1,2\n", "line 2: no image"),
        ("image,x0,y0\na,1,2\nb,1,two\n", "line 3: y0 is 'two', not a number"),
        ('image,x0,y0\na,1,"2,5"\n', "line 2: y0 is '2,5'"),
        ("image,x0,y0,x1,y1\na,1,2,3,\n", "line 2: landmark 1 has only one"),
        ("image,x0,y0\na,1,2\nb,1,inf\n", "line 3: landmark 0 is infinite"),
        ("image,x0,y0\n" + "a" * 200_000 + ",1,2\n", "line 2: not a CSV file"),
    ],
)
def test_errors_name_file_line_and_remedy(tmp_path, text, message):
    with pytest.raises(LandmarkError, match=message) as caught:
        table_of(text, tmp_path)
    assert "t.csv" in str(caught.value)


def test_missing_file_and_unknown_ending(tmp_path):
    with pytest.raises(LandmarkError, match=r"a\.csv: no such"):
        read(tmp_path / "a.csv")
    for act in (read, lambda path: write(small_table(), path)):
        with pytest.raises(LandmarkError, match=r"ending; known are \.csv"):
            act(tmp_path / "a.docx")


# ---- writing


def test_written_files_look_like_this(tmp_path):
    table = small_table()
    table.points[1, 1] = NAN
    table.points[0, 0] = (-0.00001, 2.123456)
    write(table, tmp_path / "new/folder/t.csv")
    assert (tmp_path / "new/folder/t.csv").read_bytes().decode().splitlines() == [
        "image,l_x,l_y,l_c,r_x,r_y,r_c,splits",
        "a,0,2.1235,0,2,3,0.1667,train",
        "b,4,5,0.3333,,,0.5,test",
        "c,8,9,0.6667,10,11,0.8333,train",
    ]
    numbered = LandmarkTable(table.images, table.points, confidence=table.confidence)
    write(numbered, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().startswith("image,x0,y0,x1,y1,c0,c1\na,0,2.1235,2,3,0,0.1667\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "t.csv"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    write(small_table(), tmp_path / "t.csv")
    broken = small_table()
    object.__setattr__(broken, "splits", ("one",))
    with pytest.raises(ValueError, match="zip"):
        write(broken, tmp_path / "t.csv")
    assert_same(read(tmp_path / "t.csv"), small_table(), atol=5e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> LandmarkTable:
    n, k = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    coordinates = st.integers(-(10**8), 10**8).map(lambda i: i / 10_000)
    points = draw(arrays(np.float64, (n, k, 2), elements=coordinates))
    points[draw(arrays(np.bool_, (n, k)))] = NAN
    confidence = arrays(np.float64, (n, k), elements=st.integers(0, 10_000).map(lambda i: i / 10_000))
    return LandmarkTable(
        images=tuple(draw(st.lists(WORDS, min_size=n, max_size=n, unique=True))),
        points=points,
        names=draw(st.none() | st.lists(WORDS, min_size=k, max_size=k, unique=True).map(tuple)),
        confidence=draw(st.none() | confidence),
        splits=draw(st.none() | st.lists(st.sampled_from(["train", "test", ""]), min_size=n, max_size=n).map(tuple)),
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables())
def test_round_trip(tmp_path, table):
    write(table, tmp_path / "t.csv")
    assert_same(read(tmp_path / "t.csv"), table)


def test_missing_as_r_writes_it(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("image,x0,y0,x1,y1\na.png,1,2,NA,NA\n")
    np.testing.assert_array_equal(read(path).points, [[[1, 2], [np.nan, np.nan]]])
