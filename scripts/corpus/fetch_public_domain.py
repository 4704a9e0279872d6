#!/usr/bin/env python3
"""Makes data/quickstart/{train,validation}.jsonl: Jane Austen's novels and the King James Bible.

Both texts are in the public domain and are taken out of two packages of Debian or Ubuntu
(r-cran-janeaustenr, bible-kjv-text): downloaded into a cache folder and unpacked there, nothing is
installed, root is not needed. A document is a chapter, {"id": ..., "text": ...} a line. A document
is held out for validation when the hash of its id falls into the lowest 5 %, so that the choice
depends on nothing else.

  scripts/corpus/fetch_public_domain.py [--output data/quickstart] [--cache data/cache/packages]
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import zlib

PACKAGES = ["r-cran-janeaustenr", "bible-kjv-text"]
HELD_OUT = 0.05
# Sums of the files this script makes, with what every release of the packages so far contains.
KNOWN = {"train.jsonl": "45bbe517a0cc69743ad8258d93bb8d68a9b49ef4f3af43e71524947acacfdb84",
         "validation.jsonl": "46552dbd9aa46d186b333002cc11a01238efe75845686e89c069e9a4b3472612"}

# Novels in the order of the R data file, with their number of chapters.
NOVELS = [("Emma", 55), ("Mansfield Park", 48), ("Northanger Abbey", 31), ("Persuasion", 24),
          ("Pride and Prejudice", 61), ("Sense and Sensibility", 50)]
BOOKS = """Genesis Exodus Leviticus Numbers Deuteronomy Joshua Judges Ruth 1_Samuel 2_Samuel 1_Kings
2_Kings 1_Chronicles 2_Chronicles Ezra Nehemiah Esther Job Psalms Proverbs Ecclesiastes
Song_of_Solomon Isaiah Jeremiah Lamentations Ezekiel Daniel Hosea Joel Amos Obadiah Jonah Micah
Nahum Habakkuk Zephaniah Haggai Zechariah Malachi Matthew Mark Luke John Acts Romans 1_Corinthians
2_Corinthians Galatians Ephesians Philippians Colossians 1_Thessalonians 2_Thessalonians 1_Timothy
2_Timothy Titus Philemon Hebrews James 1_Peter 2_Peter 1_John 2_John 3_John Jude
Revelation""".replace("\n", " ").split(" ")
BIBLE_CHAPTERS, BIBLE_VERSES = 1189, 31102


class Problem(Exception):
    """One line for the user: what is wrong, and what to do."""


def say(line):
    print(f"corpus: {line}", flush=True)


# --- packages ------------------------------------------------------------------------------------

def run(command, folder):
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Problem(f"cannot run {command[0]}: {error.strerror}") from error


def unpack_packages(cache):
    """Returns the folder that holds the packages' files."""
    files = cache / "files"
    if (files / "complete").exists():
        return files
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Problem(f"{tool} not found: this corpus comes out of Debian or Ubuntu packages; "
                          "elsewhere, train on your own .jsonl files with a \"text\" field")
    cache.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        archive = download(package, cache)
        unpacked = run(["dpkg-deb", "-x", str(archive.resolve()), str(files.resolve())], cache)
        if unpacked.returncode != 0:
            archive.unlink()
            raise Problem(f"{archive} is damaged and was removed; start again: "
                          f"{last_line(unpacked.stderr)}")
    (files / "complete").touch()
    return files


def download(package, cache):
    have = sorted(cache.glob(f"{package}_*.deb"))
    if have:
        return have[-1]
    say(f"downloading {package}")
    get = ["apt-get", "-q", "-o", "APT::Sandbox::User=root"]
    result = run([*get, "download", package], cache)
    if result.returncode != 0:
        # No package lists yet (a fresh container) or old ones: fetch our own, which needs no root.
        folder = (cache / "apt").resolve()
        (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        get += ["-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}"]
        run([*get, "update"], cache)
        result = run([*get, "download", package], cache)
    have = sorted(cache.glob(f"{package}_*.deb"))
    if result.returncode != 0 or not have:
        raise Problem(f"cannot download {package}: {last_line(result.stderr)}; check the network "
                      "and the apt sources (Debian: main, Ubuntu: universe)")
    return have[-1]


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


# --- Jane Austen: an R data file -----------------------------------------------------------------

def novels(files):
    """Documents of the novels. The .rdb file is a run of {u32 size, zlib stream}, one an object."""
    path = files / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    data = path.read_bytes()
    position = 0
    for title, chapters in NOVELS:
        if position + 4 > len(data):
            raise Problem(f"{path} ends before {title}; remove the cache folder and start again")
        inflate = zlib.decompressobj()
        raw = inflate.decompress(data[position + 4:])
        position = len(data) - len(inflate.unused_data)
        lines = r_strings(raw, path)
        if lines[0].lower() != title.lower():
            raise Problem(f"{path}: found {lines[0]!r} where {title} should be; "
                          "this version of r-cran-janeaustenr is not known")
        found = split_chapters(lines)
        if len(found) != chapters:
            raise Problem(f"{path}: {title} has {len(found)} chapters, expected {chapters}")
        for number, text in enumerate(found, start=1):
            yield f"austen/{title}/{number}", f"{title}, chapter {number}\n\n{text}"


def r_strings(raw, path):
    """A character vector in R's XDR serialization: header, then {u32 flags, i32 length, bytes}."""
    if raw[:2] != b"X\n":
        raise Problem(f"{path}: not R's XDR format")
    position = 14
    if struct.unpack_from(">i", raw, 2)[0] >= 3:  # version 3 names the encoding
        position += 4 + struct.unpack_from(">i", raw, position)[0]
    flags, count = struct.unpack_from(">Ii", raw, position)
    if flags & 0xFF != 16:
        raise Problem(f"{path}: object of type {flags & 0xFF}, expected a character vector (16)")
    position += 8
    strings = []
    for _ in range(count):
        length = max(0, struct.unpack_from(">Ii", raw, position)[1])  # -1: missing
        strings.append(raw[position + 8:position + 8 + length].decode("utf-8"))
        position += 8 + length
    return strings


def split_chapters(lines):
    """Text by chapter heading; title pages, volume headings and closing words are left out."""
    chapters = []
    for line in lines:
        if re.fullmatch(r"chapter ([0-9]+|[ivxl]+)\.?", line.strip(), re.IGNORECASE):
            chapters.append([])
        elif line.strip() == "A NOTE ON THE TEXT":
            break
        elif chapters and not re.fullmatch(r"volume [ivx]+|finis\.?|the end\.?", line.strip(),
                                           re.IGNORECASE):
            chapters[-1].append(line)
    return [unwrap(chapter) for chapter in chapters]


def unwrap(lines):
    """Lines of a paragraph become one; indented lines (verse, letters) stay lines."""
    paragraphs = [[]]
    for line in lines:
        if not line.strip():
            paragraphs.append([])
        elif paragraphs[-1] and not line.startswith("  "):
            paragraphs[-1][-1] += " " + line.strip()
        else:
            paragraphs[-1].append(line.rstrip())
    return "\n\n".join("\n".join(p) for p in paragraphs if p)


# --- The King James Bible: windows of compress(1) ------------------------------------------------

def bible(files):
    """Documents of the Bible. The file: header, u32 window count, u32 offsets, LZW windows."""
    path = files / "usr/lib/bible.data"
    data = path.read_bytes()
    if data[:4] != b"EC02":
        raise Problem(f"{path}: not the format of bible-kjv-text 4.x")
    count = struct.unpack_from(">I", data, 0x58)[0]
    starts = [*struct.unpack_from(f">{count}I", data, 0x5C), len(data)]
    text = b"".join(uncompress(data[a:b], path) for a, b in zip(starts, starts[1:]))
    chapters, verses = {}, 0
    for line in text.decode("ascii").splitlines():
        match = re.match(r"(\d?[A-Za-z]+)(\d+):\d+ (.*)", line)
        if match:
            chapters.setdefault(match.group(1, 2), []).append(match[3].strip())
            verses += 1
    names = dict(zip(dict.fromkeys(book for book, _ in chapters), BOOKS))
    if (len(chapters), verses, len(names)) != (BIBLE_CHAPTERS, BIBLE_VERSES, len(BOOKS)):
        raise Problem(f"{path}: {len(chapters)} chapters and {verses} verses, expected "
                      f"{BIBLE_CHAPTERS} and {BIBLE_VERSES}")
    for (book, chapter), lines in chapters.items():
        title = names[book].replace("_", " ")
        yield f"kjv/{title}/{chapter}", f"{title}, chapter {chapter}\n\n" + "\n".join(lines)


def uncompress(window, path):
    """gzip reads compress(1)'s format; the windows lack its three leading bytes."""
    result = subprocess.run(["gzip", "-dc"], input=b"\x1f\x9d\x90" + window, capture_output=True,
                            check=False)
    if result.returncode != 0:
        raise Problem(f"{path}: damaged ({last_line(result.stderr.decode())}); remove the cache "
                      "folder and start again")
    return result.stdout


# --- files ---------------------------------------------------------------------------------------

def held_out(name):
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return number < HELD_OUT * 2**64


def write(documents, output):
    parts = {"train.jsonl": [], "validation.jsonl": []}
    for name, text in documents:
        part = parts["validation.jsonl" if held_out(name) else "train.jsonl"]
        part.append((json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n", text))
    output.mkdir(parents=True, exist_ok=True)
    for file_name, lines in parts.items():
        content = "".join(line for line, _ in lines).encode("utf-8")
        temporary = output / (file_name + ".part")
        temporary.write_bytes(content)
        os.replace(temporary, output / file_name)
        size = sum(len(text.encode("utf-8")) for _, text in lines)
        say(f"{output / file_name}: {len(lines)} documents, {size / 1e6:.2f} MB of text")
        if hashlib.sha256(content).hexdigest() != KNOWN[file_name]:
            say(f"{file_name} differs from the published one (another version of a package); "
                "figures in the documentation will differ slightly")


def is_done(output):
    return all((output / name).is_file() and
               hashlib.sha256((output / name).read_bytes()).hexdigest() == known
               for name, known in KNOWN.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default="data/quickstart")
    parser.add_argument("--cache", type=pathlib.Path, default="data/cache/packages")
    options = parser.parse_args()
    try:
        if is_done(options.output):
            say(f"{options.output} is complete")
            return 0
        files = unpack_packages(options.cache)
        write([*novels(files), *bible(files)], options.output)
    except (Problem, OSError) as problem:
        print(f"corpus: {problem}", file=sys.stderr)
        return 1
    except (zlib.error, struct.error, UnicodeDecodeError) as problem:
        print(f"corpus: a file under {options.cache} is damaged ({problem}); remove that folder "
              "and start again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
