#!/usr/bin/env python3
"""Writes tests/data/golden/*.{bin,idx}: small Megatron token files made with numpy.

The layout follows Megatron-LM's IndexedDataset, version 1 (docs/formats/tokens.md). It is written
here a second time, in another language, so that the C++ reader and writer are held against more
than each other. Run by hand; needs numpy; the output is committed.
"""
import pathlib
import struct

import numpy as np

CODES = {np.uint8: 1, np.int8: 2, np.int16: 3, np.int32: 4, np.int64: 5, np.uint16: 8}


def document(d: int, vocab: int) -> list[int]:
    """The same rule stands in tests/data/token_file_test.cpp."""
    return [(d * 1009 + i * 37 + 5) % vocab for i in range(d * 7 % 13)]


def write(prefix: pathlib.Path, sequences: list[list[int]], boundaries: list[int], dtype) -> None:
    arrays = [np.array(s, dtype=dtype) for s in sequences]
    sizes = np.array([len(a) for a in arrays], dtype=np.int32)
    pointers = np.zeros(len(arrays), dtype=np.int64)
    pointers[1:] = np.cumsum(sizes[:-1].astype(np.int64) * np.dtype(dtype).itemsize)
    with open(f"{prefix}.bin", "wb") as f:
        for a in arrays:
            f.write(a.tobytes(order="C"))
    with open(f"{prefix}.idx", "wb") as f:
        f.write(b"MMIDIDX\x00\x00")
        f.write(struct.pack("<Q", 1))
        f.write(struct.pack("<B", CODES[dtype]))
        f.write(struct.pack("<Q", len(sizes)))
        f.write(struct.pack("<Q", len(boundaries)))
        f.write(sizes.tobytes(order="C"))
        f.write(pointers.tobytes(order="C"))
        f.write(np.array(boundaries, dtype=np.int64).tobytes(order="C"))


def main() -> None:
    folder = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "golden"
    folder.mkdir(parents=True, exist_ok=True)
    for name, dtype, vocab in [("u16", np.uint16, 65499), ("i32", np.int32, 65500)]:
        documents = [document(d, vocab) for d in range(20)]
        write(folder / name, documents, list(range(21)), dtype)
    # Documents of two, no, three and one sequences, in a type we do not write.
    sequences = [document(d, 100) for d in range(1, 7)]
    write(folder / "grouped", sequences, [0, 2, 2, 5, 6], np.int64)


if __name__ == "__main__":
    main()
