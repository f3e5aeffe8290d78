import contextlib
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm.errors import InputError, RowError
from pgenrm.rows import RejectedRow, count_rows, read_comparisons, read_values
from pgenrm.types import Comparison
from tests import cases

GOOD = cases.comparison().model_dump_json()


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"".join((x.encode() if isinstance(x, str) else x) + b"\n" for x in lines))
    return path


def row(**change: object) -> str:
    return json.dumps(json.loads(GOOD) | change)


def test_lines_are_read_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row(id="1"), "", "  ", row(id="2"))
    assert [c.id for c in read_comparisons([path])] == ["1", "2"]
    assert count_rows([path]) == 2


def test_a_document_an_array_and_a_gzip_are_read(tmp_path: Path) -> None:
    one = tmp_path / "one.json"
    one.write_text(json.dumps(json.loads(row(id="1")), indent=2))
    many = tmp_path / "many.json"
    many.write_text("[" + row(id="2") + ",\n" + row(id="3") + "]")
    lines = write(tmp_path / "lines.json", row(id="4"), row(id="5"))
    zipped = tmp_path / "z.jsonl.gz"
    zipped.write_bytes(gzip.compress(row(id="6").encode()))
    found = [c.id for c in read_comparisons([one, many, lines, zipped])]
    assert found == ["1", "2", "3", "4", "5", "6"]
    assert count_rows([one]) is None


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    for suffix in ("jsonl", "json"):
        path = write(tmp_path / f"a.{suffix}", b"\xef\xbb\xbf" + GOOD.encode())
        assert [c.id for c in read_comparisons([path])] == ["c0"]


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO((row(id="1") + "\n" + row(id="2")).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert [c.id for c in read_comparisons(["-"])] == ["1", "2"]


def test_a_row_without_an_id_is_named_after_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "prism.jsonl", row(id=None), row(id=None))
    assert [c.id for c in read_comparisons([path])] == ["prism-1", "prism-2"]


def test_rows_without_ids_in_files_of_one_name_do_not_collide(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    paths = [write(tmp_path / folder / "x.jsonl", row(id=None)) for folder in ("a", "b")]
    assert [c.id for c in read_comparisons(paths)] == [f"{tmp_path}/a/x-1", f"{tmp_path}/b/x-1"]


def test_a_document_that_is_no_json_is_one_bad_row(tmp_path: Path) -> None:
    broken = write(tmp_path / "broken.json", "{", '"id": 1')
    rejected: list[RejectedRow] = []
    good = write(tmp_path / "good.jsonl", GOOD)
    assert len(list(read_comparisons([broken, good], rejected.append))) == 1
    assert len(rejected) == 1
    assert "not valid JSON" in rejected[0].reason


def test_lines_on_standard_input_may_begin_with_bad_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "bad\nworse\n" + GOOD
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    rejected: list[RejectedRow] = []
    assert [c.id for c in read_comparisons(["-"], rejected.append)] == ["c0"]
    assert [r.place for r in rejected] == ["stdin:1", "stdin:2"]


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert list(read_comparisons([write(tmp_path / "a.jsonl"), write(tmp_path / "a.json")])) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "\xff"}', "not valid UTF-8 at byte 9; save the file as UTF-8"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"id": NaN}', "not valid JSON"),
        ("3", "a row must be a JSON object, found 3"),
        ("null", "a row must be a JSON object, found null"),
        (row(responses=None), "'responses' is missing; a comparison needs"),
        (row(responses=7), "'responses' must be a list, found 7"),
        (row(user="bob"), "'user' must be an object, found \"bob\""),
        (row(user={"history": []}), "'user.id' is missing; a user needs an id"),
        (row(context=[{"content": "x"}]), "'context.0.role' is missing; a message needs role and"),
        (row(label=True), "'label' must be the index of a response, found True"),
        (row(label="1"), "'label' must be the index of a response, found '1'"),
        (row(responses=[]), "'responses' has 0 items; give at least 1"),
        (row(responses=["a", None]), "'responses.1' must be a text, found null"),
        (row(label=5), "label is 5 but there are 2 responses; use an index from 0 to 1"),
        (row(context=[{"role": "tool", "content": ""}]), "use 'system', 'user' or 'assistant'"),
        (row(user={"id": "u", "nam": 1}), "'user.nam' is not a known field"),
        ('{"id": "1", "user_id": "u"}', "a comparison needs user (or user_id), context and"),
        (
            row(user={"id": "u", "history": [{"context": "q", "chosen": "a"}]}),
            "'user.history.0.rejected' is missing; a preference needs context, chosen and rejected",
        ),
        ('{"id": "\\ud800", "user_id": "u", "context": "q", "responses": ["a"]}', "not valid JSON"),
    ],
)
def test_a_bad_row_says_where_what_and_what_to_do(
    tmp_path: Path, line: str | bytes, reason: str
) -> None:
    path = write(tmp_path / "a.jsonl", row(id="1"), line, row(id="3"))
    rows = read_comparisons([path])
    assert next(rows).id == "1"
    with pytest.raises(RowError) as caught:
        next(rows)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert reason in str(caught.value)

    rejected: list[RejectedRow] = []
    assert [c.id for c in read_comparisons([path], rejected.append)] == ["1", "3"]
    assert [r.place for r in rejected] == [f"{path}:2"]
    assert reason in rejected[0].reason


def test_an_id_used_twice_is_an_error_across_files(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.jsonl", GOOD), write(tmp_path / "b.jsonl", GOOD)]
    with pytest.raises(RowError, match=r"b\.jsonl:1: id 'c0' was already used"):
        list(read_comparisons(paths))


def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        list(read_comparisons([tmp_path / "none.jsonl"]))
    with pytest.raises(InputError, match="is a directory"):
        list(read_comparisons([tmp_path]))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(GOOD.encode() * 100)[:-20])
    with pytest.raises(InputError, match="cannot be read: "):
        list(read_comparisons([cut]))
    plain = write(tmp_path / "plain.jsonl.gz", GOOD)
    with pytest.raises(InputError, match="cannot be read: "):
        list(read_comparisons([plain]))


def test_a_one_megabyte_response_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row(responses=["x" * 2**20, "y"]))
    assert len(next(read_comparisons([path])).responses[0]) == 2**20


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=40), max_size=4), st.sampled_from(["jsonl", "json"]))
def test_any_bytes_give_rows_or_a_row_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], suffix: str
) -> None:
    path = tmp_path_factory.mktemp("any") / f"a.{suffix}"
    path.write_bytes(b"\n".join(lines))
    rows = read_values(path, Comparison)
    with contextlib.suppress(RowError):
        assert all(place.startswith(str(path)) for place, _ in rows)
