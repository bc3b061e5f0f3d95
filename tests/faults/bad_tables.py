"""Tables that are no data: ragged, of text, in other encodings, damaged, enormous."""

import io
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.bad_arrays import X
from tests.faults.damage import damaged

_CELLS = (
    "1", "-2.5", "", "nan", "NaN", "inf", "-inf", "1e400", "-1e400", "1e-400", "9" * 400, "1" + "0" * 5000, "0x10",
    "1_000", "1.2.3", "1,5", "a", "true", "NULL", "null", "#N/A", "2024-01-01", "12:30", '"', '"1"', '""', "'1'",
    "\x00", "\ufeff1", "\x1b[31m1", "−1", "١٢", "1 ", " 1", "\t", "<script>alert(1)</script>", "=1+1", "1\r",
    "ä" * 100, "x" * 70_000, "+1", "1e", ".", "-",
)  # fmt: skip
_HEADS = (
    "a,b,c", "a,a,a", ",,", "a,b", "a,b,c,d", "1,2,3", "nan,inf,1", '"a","b","c"', "\ufeffa,b,c", "a;b;c", "a\tb\tc",
    "", "\n\n", "a,b,\x00", "labels,x,y", '"a\nb",c,d', "a" * 70_000 + ",b,c", "<b>a</b>,b,c", "\x1b]0;x\x07,b,c",
)  # fmt: skip


def csv(rng: Random) -> bytes:
    """A .csv file."""
    if rng.random() < 0.01:
        return _wide_csv(rng)
    make = rng.choice([_damaged_csv, _strange_cells, _strange_cells, _other_encoding, _other_shape, _no_table])
    return make(rng)


def parquet(rng: Random) -> bytes:
    """A .parquet file."""
    make = rng.choice([_damaged_parquet, _damaged_footer, _damaged_footer, _other_types])
    return make(rng)


def _plain(rng: Random) -> list[str]:
    return ["a,b,c", *(",".join(f"{value:.6g}" for value in row) for row in X)]


def _damaged_csv(rng: Random) -> bytes:
    return damaged("\n".join(_plain(rng)).encode(), rng)


def _strange_cells(rng: Random) -> bytes:
    lines = _plain(rng)
    for _ in range(rng.choice([1, 1, 3, 10])):
        row = rng.randrange(1, len(lines))
        cells = lines[row].split(",")
        cells[rng.randrange(len(cells))] = rng.choice(_CELLS)
        lines[row] = ",".join(cells)
    if rng.random() < 0.3:
        lines[0] = rng.choice(_HEADS)
    if rng.random() < 0.1:  # a whole column
        lines = [lines[0], *(f"{rng.choice(_CELLS[:6])},{line}" for line in lines[1:])]
    return rng.choice(["\n", "\r\n", "\r", "\n\n"]).join(lines).encode("utf-8", "surrogatepass")


def _other_encoding(rng: Random) -> bytes:
    text = "\n".join(["größe,b,c", *_plain(rng)[1:]])
    return text.encode(rng.choice(["utf-16", "utf-32", "latin-1", "utf-8-sig", "cp500", "utf-16-be"]))


def _other_shape(rng: Random) -> bytes:
    rows, columns = rng.choice([(1, 1), (1, 3), (2, 1), (0, 3), (20, 1), (3, 2000), (5000, 1), (2, 2), (8, 20)])
    value = rng.choice(["1", "0.5", "", "nan", "x"])
    return "\n".join([",".join(f"c{n}" for n in range(columns))] + [",".join([value] * columns)] * rows).encode()


def _wide_csv(rng: Random) -> bytes:
    columns = rng.choice([10**4, 10**5, 10**6])
    return b"\n".join([b",".join([b"1"] * columns), b",".join([b"2"] * columns), b",".join([b"3"] * columns)])


def _no_table(rng: Random) -> bytes:
    return rng.choice(
        [
            b"\n",
            b"\x00" * rng.choice([1, 100, 10**5]),
            rng.randbytes(rng.choice([1, 100, 10**4])),
            b'"' * rng.choice([1, 2, 3, 10_001]),
            b"," * rng.choice([1, 100, 10**5]),
            b"\n" * 10**5,
            b'a,b\n"1,2\n3,4',
            b"1" * 3_000_000,
            b"a,b\n" + b"1" * 2_000_000 + b",2\n",
            b"<html><body>404</body></html>",
            b'{"a": [1, 2]}',
            b"PK\x05\x06" + bytes(18),
            b"\x1f\x8b" + rng.randbytes(50),
            b"a\n" + b"1\n" * 5 + b"2" * 100 + b"\n",
        ]
    )


def written(table: pa.Table, **options: Any) -> bytes:
    """The table as the bytes of a .parquet file."""
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


@cache
def _originals() -> tuple[bytes, ...]:
    table = pa.table({name: X[:, column] for column, name in enumerate("abc")})
    options: tuple[dict[str, Any], ...] = (
        {}, {"compression": "none"}, {"compression": "gzip", "use_dictionary": False},
        {"data_page_version": "2.0", "row_group_size": 7}, {"compression": "zstd"},
    )  # fmt: skip
    return tuple(written(table, **chosen) for chosen in options)


def _damaged_parquet(rng: Random) -> bytes:
    return damaged(rng.choice(_originals()), rng)


def _damaged_footer(rng: Random) -> bytes:
    """Damage to what says where everything is: it stands at the end, its length in the last eight bytes."""
    content = rng.choice(_originals())
    length = int.from_bytes(content[-8:-4], "little")
    if rng.random() < 0.2:
        number = rng.choice([0, 1, length - 1, length + 1, len(content), 2**31 - 1, 2**32 - 1])
        return content[:-8] + number.to_bytes(4, "little") + content[-4:]
    start = len(content) - 8 - length
    return content[:start] + damaged(content[start:-8], rng)[:length].ljust(length, b"\0") + content[-8:]


def _other_types(rng: Random) -> bytes:
    n = 20
    columns: dict[str, Any] = {
        "list": pa.array([[1.0, 2.0]] * n),
        "struct": pa.array([{"u": 1.0}] * n),
        "map": pa.array([[("k", 1)]] * n, pa.map_(pa.string(), pa.int64())),
        "text": pa.array(["u"] * n),
        "words": pa.array(["u", "v"] * (n // 2)).dictionary_encode(),
        "numbers": pa.array([1, 2] * (n // 2)).dictionary_encode(),
        "bytes": pa.array([b"\xff\xfe"] * n),
        "nulls": pa.nulls(n),
        "decimal": pa.array([1] * n, pa.decimal128(20, 3)),
        "half": pa.array(np.ones(n, np.float16)),
        "big": pa.array([2**64 - 1 - i for i in range(n)], pa.uint64()),
        "when": pa.array([0] * n, pa.timestamp("ns")),
        "flag": pa.array([True, None] * (n // 2)),
        "holes": pa.array([1.0, None] * (n // 2)),
        "infinite": pa.array([float("inf")] + [1.0] * (n - 1)),
        "whole": pa.array([None, *range(n - 1)], pa.int64()),
        "\x1b[31m": pa.array([1.5] * n),
        "": pa.array(range(n)),
    }
    chosen = rng.sample(sorted(columns), rng.choice([1, 1, 2, 3]))
    table = pa.table({name: columns[name] for name in chosen}).slice(0, rng.choice([n, n, n, 1, 0]))
    if rng.random() < 0.1:
        table = pa.table({f"c{number}": X[:, 0] for number in range(rng.choice([300, 3000]))})
    if rng.random() < 0.1:
        table = pa.Table.from_arrays([pa.array(X[:, 0]), pa.array(X[:, 1])], names=["a", "a"])
    if rng.random() < 0.05:
        table = pa.table({})
    return written(table)
