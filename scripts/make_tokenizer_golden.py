#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/{small.json,parity.txt}: PyPI `tokenizers` on generated text.

tests/data/tokenizer/parity_text.h generates the same text from the same snippets and compares
hashes of the ids, chunk by chunk. Run by hand:
    pip install tokenizers
    python scripts/make_tokenizer_golden.py PATH/gpt2/tokenizer.json
"""

import copy
import json
import pathlib
import struct
import sys

import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/tokenizer"
CHUNK_BYTES = 4096
GPT2_CHUNKS = 300
SMALL_CHUNKS = 60
TRAINING_DOCUMENTS = 100
SPACES = [" ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u0085", "\u180e"]
CONTRACTIONS = ["'s", "'S", "'ll", "'LL", "'\u017f", "'re", "'Ve", "'d", "'m", "'T", "''", "'"]
SPECIALS = ["<|endoftext|>", "<|endoftext", " <x> ", "<x>y\n ", "zq-x", "xzq-x", " ~'~ ", "été"]
REPEATED = "a= -*\n.0"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def fnv(data, h=0xCBF29CE484222325):
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


class Lcg:
    def __init__(self, seed):
        self.state = seed
        self.below(1)

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        return (self.state >> 33) % n


def character(r):
    code = r.below(0x3000) if r.below(2) == 0 else r.below(0x110000)
    return chr(0x20 if 0xD800 <= code < 0xE000 else code).encode()


def chunk(snippets, number):
    r = Lcg(number)
    out = bytearray()
    while len(out) < CHUNK_BYTES:
        kind = r.below(16)
        if kind == 8:
            space = SPACES[r.below(len(SPACES))].encode()
            out += space * (1 + r.below(5))
        elif kind == 9:
            for _ in range(1 + r.below(6)):
                out += character(r)
        elif kind == 10:
            for _ in range(1 + r.below(8)):
                out.append(r.below(256))
        elif kind == 11:
            out += CONTRACTIONS[r.below(len(CONTRACTIONS))].encode()
        elif kind == 12:
            out += SPECIALS[r.below(len(SPECIALS))].encode()
        elif kind == 13:
            out += str(r.below(1000000000)).encode()
        elif kind == 14:
            c = REPEATED[r.below(len(REPEATED))].encode()
            out += c * (1 + r.below(200))
        else:
            s = snippets[r.below(len(snippets))]
            begin = r.below(len(s))
            out += s[begin : begin + 1 + r.below(160)]
    return bytes(out)


def text_of(data):
    return data.decode("utf-8", errors="replace")


def byte_level(add_prefix_space, use_regex):
    flags = {"add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}
    return {"type": "ByteLevel", **flags}


def split(pattern):
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def sequence(*stages):
    return {"type": "Sequence", "pretokenizers": list(stages)}


def train(snippets):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        min_frequency=2,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    documents = (text_of(chunk(snippets, i)) for i in range(TRAINING_DOCUMENTS))
    tok.train_from_iterator(documents, trainer)
    return tok.to_str(pretty=True)


def variants(small):
    """The tokenizers that tests/data/tokenizer/parity_test.cpp builds from small.json, by name."""
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized", "special"], False)
    added = [
        {"content": " été", "normalized": True},
        {"content": "zq-x", "single_word": True, "normalized": True},
        {"content": "<x>", "lstrip": True, "special": True},
        {"content": "<x>y", "rstrip": True, "special": True},
        {"content": "~'~", "lstrip": True, "rstrip": True},
    ]
    size = len(small["model"]["vocab"])
    added = [{"id": size + i, **flags, **a} for i, a in enumerate(added)]
    stages = {
        "plain": byte_level(False, True),
        "prefix": byte_level(True, True),
        "llama3": sequence(split({"Regex": LLAMA3}), byte_level(False, False)),
        "qwen2": sequence(split({"Regex": LLAMA3.replace("{1,3}", "")}), byte_level(False, False)),
        "literal": sequence(
            split({"String": "'s"}), split({"Regex": r"[A-Z]+(?=[a-z])|\s+"}), byte_level(True, True)
        ),
    }
    stages["nfc"] = stages["qwen2"]
    for name, stage in stages.items():
        v = copy.deepcopy(small)
        v["pre_tokenizer"] = stage
        v["model"]["ignore_merges"] = name == "llama3"
        if name == "nfc":
            v["normalizer"] = {"type": "NFC"}
        if name != "plain":
            v["added_tokens"] += added
        yield name, Tokenizer.from_str(json.dumps(v))


def main():
    snippets = (FOLDER / "snippets.txt").read_bytes().split(b"%%\n")
    small = train(snippets)
    (FOLDER / "small.json").write_text(small + "\n")
    chunks = [chunk(snippets, i) for i in range(GPT2_CHUNKS)]
    columns = "name, chunk, hash of its bytes, number of ids, hash of ids"
    lines = [f"# PyPI tokenizers {tokenizers.__version__}: {columns}"]

    def add(name, tok, count):
        for i in range(count):
            ids = tok.encode(text_of(chunks[i]), add_special_tokens=False).ids
            packed = struct.pack(f"<{len(ids)}i", *ids)
            lines.append(f"{name} {i} {fnv(chunks[i]):016x} {len(ids)} {fnv(packed):016x}")

    add("gpt2", Tokenizer.from_file(sys.argv[1]), GPT2_CHUNKS)
    for name, tok in variants(json.loads(small)):
        add(name, tok, SMALL_CHUNKS)
    (FOLDER / "parity.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
