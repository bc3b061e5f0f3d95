"""Arrays that are no data: damaged, lying about their size, made to run code or to fill the memory."""

import io
import pickle
import struct
import warnings
import zipfile
import zlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.faults.damage import damaged

# an original is small, so that damage hits its header about as often as its numbers
X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
_SHAPES: tuple[Any, ...] = (
    (20, 3), (20,), (), (0, 3), (20, 0), (1, 3), (2, 3), (20, 3, 1), (20, 1, 3), (20, 3, 1, 1), (60, 1), (1, 60),
    (10**12,), (10**12, 3), (10**6, 10**6), (2**40, 2**40), (2**62, 4), (2**63, 1), (2**64, 2), (-1, 3), (20, -3),
    (-4, -15), (True, 3), (20.0, 3), ("20", 3), (None, 3), [20, 3], 60, None, (20, (3,)), (1,) * 40, (1,) * 70,
)  # fmt: skip
_DTYPES: tuple[Any, ...] = (
    "<f4", "<f8", ">f4", ">f8", "<f2", "<f16", "<f3", "<i8", "|u1", "|b1", "<c8", "<c16", "|O", "|O8", "<U10", "<U0",
    "|S4", "|V8", "<M8[s]", "<m8[ns]", "<M8[xyz]", "", "junk", "f4,f4", "<f999999999", "<U999999999", 4, None, [], {},
    [("a", "<f4")], [("a", "<f4", (10**6, 10**6))], [("a", "|O")], [("", "<f4")], ("<f4", (3,)), ("<f4", (10**9,)),
)  # fmt: skip
_HEADERS = (
    "",
    "{}",
    "[]",
    "()",
    "{'descr': '<f4'}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (20, 3), 'more': 1}",
    "__import__('pathlib').Path('pwned').touch()",
    "{'descr': __import__('pathlib').Path('pwned').touch(), 'fortran_order': False, 'shape': (20, 3)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (9**9**9, 3)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (20L, 3L)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ", 3)}",
    "(" * 300,
    "(" * 9000 + ")" * 9000,
    "-" * 9000 + "1",
    "[" + "'x'," * 2000,
    "{'descr': '\x00', 'fortran_order': False, 'shape': (20, 3)}",
)
_MEMBERS = (
    "x.npy", "x", "values.npy", "labels.npy", "../x.npy", "/x.npy", "a/../../x.npy", "C:\\x.npy", "", "x\n.npy",
    "\N{GREEK SMALL LETTER PHI}.npy", "x" * 3000 + ".npy",
)  # fmt: skip


class Touch:
    """Unpickling this leaves a file ``pwned`` in the current folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("pwned"),)


def npy(rng: Random) -> bytes:
    """A .npy file that is damaged, or whose header says what is not so."""
    make = rng.choice([_damaged_npy, _other_npy, _lying_npy, _lying_npy, _strange_header, _pickled])
    return make(rng)


def npz(rng: Random) -> bytes:
    """An .npz file: damaged, with strange members or a lying directory, or a bomb."""
    if rng.random() < 0.01:
        return bomb(rng)
    make = rng.choice([_damaged_npz, _damaged_npz, _strange_members, _lying_directory, _lying_directory, _crowd])
    return make(rng)


def with_header(header: str, payload: bytes, version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    """A .npy file with any text for a header, and any number for its length."""
    text = header.encode("utf-8", "surrogatepass") + b"\n"
    size = len(text) if length is None else length
    packed = struct.pack("<H", size & 0xFFFF) if version == (1, 0) else struct.pack("<I", size & 0xFFFFFFFF)
    return b"\x93NUMPY" + bytes(version) + packed + text + payload


def bomb(rng: Random) -> bytes:
    """A small archive of an array of zeros that would take gigabytes."""
    return _packed_zeros(rng.choice([10**8, 4 * 10**8]), rng.choice([1, 9]))


@cache
def _packed_zeros(rows: int, level: int) -> bytes:
    """An .npz of ``rows`` times four zeros, written without ever having them."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (rows, 4)})
    head, size = header.getvalue(), 16 * rows
    squeeze = zlib.compressobj(level, wbits=-15)
    # a flush ends on a byte, and what follows it does not look back: one block stands for all
    first = squeeze.compress(head + bytes(2**20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    block = squeeze.compress(bytes(2**20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    rest = squeeze.compress(bytes(size % 2**20)) + squeeze.flush()
    packed = first + block * (size // 2**20 - 1) + rest
    return _archive("x.npy", packed, len(head) + size, zlib_method=8)


def _damaged_npy(rng: Random) -> bytes:
    return damaged(_saved(X, rng), rng)


def _other_npy(rng: Random) -> bytes:
    arrays: tuple[Any, ...] = (
        X[:0], X[:1], X[:2], np.ones((20, 3)), np.zeros((20, 1)), X * np.nan, X * np.inf, X[:, :1], X.astype(">f8"),
        np.float64(3), np.where(np.arange(60).reshape(20, 3) == 7, np.nan, X), np.full((20, 3), 1e300) * X,
        X.astype(str), X.astype(complex), X.astype(np.longdouble) * np.longdouble("1e4000"), X.astype("M8[s]"),
        X.T.copy(), np.array([1, 2]), np.zeros((2, 2, 2, 2)), np.zeros(20, [("a", "f4"), ("b", "f4")]),
        X.reshape(5, 4, 3), np.iinfo(np.int64).max - np.arange(60).reshape(20, 3), X * np.float32(1e-38),
        X * np.float32(1e37),
    )  # fmt: skip
    return _saved(rng.choice(arrays), rng)


def _lying_npy(rng: Random) -> bytes:
    header = {"descr": rng.choice(_DTYPES), "fortran_order": rng.random() < 0.5, "shape": rng.choice(_SHAPES)}
    if rng.random() < 0.5:
        header["descr"] = "<f4"
    elif rng.random() < 0.5:
        header["shape"] = (20, 3)
    if rng.random() < 0.1:
        header["fortran_order"] = rng.choice([None, "no", 2, [], float("1.5")])
    return with_header(repr(header), X.tobytes(), _version(rng))


def _strange_header(rng: Random) -> bytes:
    version = (rng.choice([0, 1, 2, 3, 4, 255]), rng.choice([0, 0, 1]))
    length = rng.choice([None, None, None, 0, 1, 10_001, 65_535, 2**31, 2**32 - 1])
    return with_header(rng.choice(_HEADERS), X.tobytes(), version, length)


def _pickled(rng: Random) -> bytes:
    header = {"descr": "|O", "fortran_order": False, "shape": rng.choice([(20, 3), (1, 1), (), (10**12,)])}
    return with_header(repr(header), pickle.dumps(np.array([[Touch()]], dtype=object)), _version(rng))


def _version(rng: Random) -> tuple[int, int]:
    return rng.choice([(1, 0), (1, 0), (2, 0), (3, 0)])


def _saved(array: Any, rng: Random) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asfortranarray(array) if rng.random() < 0.3 else array)
    return file.getvalue()


def _damaged_npz(rng: Random) -> bytes:
    file = io.BytesIO()
    rng.choice([np.savez, np.savez_compressed])(file, x=X, labels=np.arange(20))  # type: ignore[operator]
    return damaged(file.getvalue(), rng)


def _strange_members(rng: Random) -> bytes:
    """Names that no array has, members that are none, and two of one name."""
    file = io.BytesIO()
    method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w", method) as archive:
        for name in rng.sample(_MEMBERS, rng.randrange(4)):
            archive.writestr(zipfile.ZipInfo(name), rng.choice([npy, _nested, _text])(rng))
        if rng.random() < 0.5:
            archive.writestr("x.npy", _saved(X, rng))
            archive.writestr("labels.npy", npy(rng))
    return file.getvalue()


def _nested(rng: Random) -> bytes:
    return _damaged_npz(rng)


def _text(rng: Random) -> bytes:
    return rng.choice([b"", b"a,b\n1,2\n", b"\x93NUMPY", b"{}"])


def _lying_directory(rng: Random) -> bytes:
    """Sizes, sums, methods and places in the directory that are not those of the members."""
    payload = _saved(X, rng)
    method = rng.choice([0, 0, 8])
    packed = zlib.compress(payload)[2:-4] if method else payload
    return _archive(
        rng.choice(_MEMBERS),
        packed,
        rng.choice([0, 1, len(payload), len(payload) * 1000, 2**32 - 1]),
        zlib_method=rng.choice([method, method, 1, 9, 12, 14, 99]),
        checksum=rng.choice([zlib.crc32(payload), 0]),
        place=rng.choice([0, 0, 0, 7, 2**31, 2**32 - 1]),
        flags=rng.choice([0, 0, 1, 8, 0x800, 0xFFFF]),
        count=rng.choice([1, 1, 0, 2, 65_535]),
    )


def _crowd(rng: Random) -> bytes:
    """Many members, of one name or of many."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(rng.choice([2, 20, 500])):
            archive.writestr(zipfile.ZipInfo(f"a{number}.npy"), _saved(X[:2], rng))
        if rng.random() < 0.5:
            archive.writestr("x.npy", _saved(X, rng))
    return file.getvalue()


def _archive(
    name: str,
    packed: bytes,
    size: int,
    *,
    zlib_method: int,
    checksum: int = 0,
    place: int = 0,
    flags: int = 0,
    count: int = 1,
) -> bytes:
    """A zip archive of one member, written by hand so that anything can be said of it."""
    title = name.encode()
    size = min(size, 2**32 - 1)
    common = struct.pack("<HHHHHIIIHH", 20, flags, zlib_method, 0, 33, checksum, len(packed), size, len(title), 0)
    local = b"PK\x03\x04" + common + title + packed
    directory = b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, place) + title
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(local), 0)
    return local + directory + b"PK\x05\x06" + end
