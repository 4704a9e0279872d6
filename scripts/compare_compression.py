#!/usr/bin/env python3
"""Compares a run's validation loss with general compressors on the same text, in bits per byte.

A language model with a loss of h nats a token could code a text of n tokens in h n / ln 2 bits. All
tokens of the held-out text are charged at the mean loss of the run's last validation, ends of
documents included, and divided by the bytes of its documents. Exits 1 when the model does not beat
gzip -9. What it does not count: the model itself (gzip's and xz's programs are not counted either).

  scripts/compare_compression.py RUN TEXT.jsonl TOKENS      TOKENS: the .bin/.idx pair of TEXT
"""

import argparse
import json
import math
import pathlib
import struct
import subprocess
import sys

from plot_loss import read_metrics

TOKEN_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 8: 2}  # Megatron's dtype codes


class Problem(Exception):
    """One line for the user."""


def read_documents(path):
    documents = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            documents.append(json.loads(line)["text"].encode("utf-8"))
    if not documents:
        raise Problem(f"{path} holds no documents")
    return documents


def count_tokens(prefix):
    """From the token file's size and its index's dtype: magic, u64 version, u8 dtype code."""
    header = pathlib.Path(f"{prefix}.idx").read_bytes()[:18]
    if header[:9] != b"MMIDIDX\0\0" or len(header) < 18:
        raise Problem(f"{prefix}.idx is not a token index; run grist prepare again")
    code = struct.unpack_from("<B", header, 17)[0]
    if code not in TOKEN_BYTES:
        raise Problem(f"{prefix}.idx names dtype {code}, which holds no tokens")
    return pathlib.Path(f"{prefix}.bin").stat().st_size // TOKEN_BYTES[code]


def compressed_bytes(command, data):
    try:
        result = subprocess.run(command, input=data, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Problem(f"{' '.join(command)} failed ({error}); install gzip and xz-utils") from error
    return len(result.stdout)


def last_validation(run):
    rows = [r for r in read_metrics(run / "metrics.jsonl")
            if isinstance(r.get("val_loss"), (int, float))]
    if not rows:
        raise Problem(f"{run}/metrics.jsonl holds no validation loss; set train.eval_interval")
    return rows[-1]


def compare(run, text, tokens_prefix):
    """Lines of the table, and whether the model beats gzip."""
    documents = read_documents(text)
    data = b"\n".join(documents)
    size = sum(map(len, documents))
    tokens = count_tokens(tokens_prefix)
    row = last_validation(run)
    seen = row.get("val_tokens")
    if seen is not None and seen < 0.8 * tokens:
        raise Problem(f"the last validation covered {seen} of {tokens} held-out tokens; "
                      "set train.eval_iters to 0 for all of them")
    model = row["val_loss"] * tokens / size / math.log(2)
    bits = {name: 8 * compressed_bytes(command, data) / size
            for name, command in (("gzip -9", ["gzip", "-9c"]), ("xz -9", ["xz", "-9c"]))}
    covered = "" if seen is None else f", {100 * seen / tokens:.1f} % of the tokens as targets"
    lines = [f"held-out text: {len(documents)} documents, {size} bytes, {tokens} tokens "
             f"({size / tokens:.2f} bytes each)",
             f"validation at step {row['step']}: {row['val_loss']:.4f} nats a token{covered}", "",
             f"{'':18}bits per byte   ratio to gzip"]
    for name, value in [*bits.items(), ("this model", model)]:
        lines.append(f"{name:18}{value:13.3f}   {value / bits['gzip -9']:13.2f}")
    return lines, model < bits["gzip -9"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("tokens")
    options = parser.parse_args()
    try:
        lines, better = compare(options.run, options.text, options.tokens)
    except (Problem, OSError, ValueError, KeyError) as error:
        print(f"compare_compression: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    if not better:
        print("the model does not beat gzip -9", file=sys.stderr)
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
