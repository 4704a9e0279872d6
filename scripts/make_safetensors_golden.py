#!/usr/bin/env python3
"""Safetensors files written by the reference library, for tests/ckpt, and a check of ours by it.

  make_safetensors_golden.py OUTPUT_FOLDER   writes tiny.safetensors (needs torch, safetensors)
  make_safetensors_golden.py --check FILE..  loads files that grist wrote and prints their tensors

Run by hand in an environment that has both packages; the tests need neither.
"""
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def make(folder: Path) -> None:
    tensors = {
        "weight": torch.arange(15, dtype=torch.float32).reshape(3, 5) / 4 - 1,
        "half.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3).to(torch.bfloat16),
        "not for grist": torch.arange(4).to(torch.float16),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "nothing": torch.zeros((0, 7), dtype=torch.int32),
        "ids": torch.arange(-3, 4, dtype=torch.int64),
        "bytes": torch.tensor([0, 1, 254, 255, 7], dtype=torch.uint8),
        'quote " and \\ and \u00e9 \u4e2d': torch.tensor([1, -2], dtype=torch.int32),
        "flags": torch.tensor([True, False, True]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "tiny.safetensors", {"format": "pt", "made by": "reference"})


def check(path: str) -> None:
    with safe_open(path, "pt") as f:
        print(f"{path}: metadata {f.metadata()}")
    for name, t in sorted(load_file(path).items()):
        head = t.flatten()[:4].tolist()
        print(f"  {name!r} {t.dtype} {tuple(t.shape)} {head}")


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] == "--check":
        for name in sys.argv[2:]:
            check(name)
    elif len(sys.argv) == 2:
        make(Path(sys.argv[1]))
    else:
        sys.exit(__doc__)
