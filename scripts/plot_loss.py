#!/usr/bin/env python3
"""Draws a run's loss as text and writes it as a table: RUN/loss.tsv, from RUN/metrics.jsonl.

Each column of the picture is the mean training loss (*) of a stretch of steps; o marks validation.

  scripts/plot_loss.py RUN [--width 72] [--height 16]
"""

import argparse
import json
import os
import pathlib
import sys

COLUMNS = ["step", "tokens", "loss", "val_loss", "lr", "grad_norm"]


def read_metrics(path):
    """The objects of metrics.jsonl; a last line that was cut short by a kill is left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}:{number}: not JSON ({error.msg})") from error
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def numbers(rows, key):
    """(step, value) of the rows that have a number there; null stands for a value not finite."""
    return [(row["step"], row[key]) for row in rows if isinstance(row.get(key), (int, float))]


def table(rows):
    def cell(row, key):
        value = row.get(key)
        return "" if value is None else str(value)

    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(cell(row, key) for key in COLUMNS) for row in rows]
    return "\n".join(lines) + "\n"


def bin_means(points, width, first, last):
    """Mean of the values in each of `width` equal stretches of steps; None where there are none."""
    sums = [[0.0, 0] for _ in range(width)]
    for step, value in points:
        column = min(width - 1, (step - first) * width // max(1, last - first))
        sums[column][0] += value
        sums[column][1] += 1
    return [total / count if count else None for total, count in sums]


def draw(train, validation, width, height):
    """Lines of the picture."""
    steps = [step for step, _ in train + validation]
    first, last = min(steps), max(steps)
    series = [("*", bin_means(train, width, first, last)),
              ("o", bin_means(validation, width, first, last))]
    values = [v for _, means in series for v in means if v is not None]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    grid = [[" "] * width for _ in range(height)]
    for mark, means in series:
        for column, value in enumerate(means):
            if value is not None:
                row = round((high - value) / span * (height - 1))
                grid[row][column] = mark
    lines = []
    for row, cells in enumerate(grid):
        label = high - span * row / (height - 1)
        lines.append(f"{label:7.3f} |{''.join(cells).rstrip()}")
    lines.append(" " * 8 + "+" + "-" * width)
    lines.append(f"{'':9}step {first}".ljust(width) + f"{last:>9}")
    lines.append(" " * 9 + "* training loss" + ("   o validation loss" if validation else "")
                 + " (nats a token)")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--width", type=int, default=72)
    parser.add_argument("--height", type=int, default=16)
    options = parser.parse_args()
    if options.width < 8 or options.height < 2:
        parser.error("--width is at least 8 and --height at least 2")
    try:
        rows = read_metrics(options.run / "metrics.jsonl")
        train, validation = numbers(rows, "loss"), numbers(rows, "val_loss")
        if not train:
            raise ValueError(f"{options.run}/metrics.jsonl holds no training loss yet")
        temporary = options.run / "loss.tsv.part"
        temporary.write_text(table(rows), encoding="utf-8")
        os.replace(temporary, options.run / "loss.tsv")
    except (OSError, ValueError) as error:
        print(f"plot_loss: {error}", file=sys.stderr)
        return 1
    print("\n".join(draw(train, validation, options.width, options.height)))
    print(f"table: {options.run / 'loss.tsv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
