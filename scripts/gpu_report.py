#!/usr/bin/env python3
"""One table of what scripts/gpu_check.sh measured: report.md and report.json in its output folder.

Reads there `facts.json`, `parts.tsv` (part, exit status, seconds) and every *.jsonl: a measurement
a line, as docs/cuda.md describes it. Lines with "alternative" are joined to the measurement of the
same kernel and shape; the fastest one counts.

  scripts/gpu_report.py FOLDER
"""

import json
import pathlib
import sys


def read_lines(folder):
    """All measurements; a broken line is a problem, not an end."""
    rows, problems = [], []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
                row["kernel"], row["shape"]
            except (ValueError, KeyError, TypeError):
                problems.append(f"{path.name}:{number}: not a measurement: {line[:60]}")
                continue
            rows.append(row)
    return rows, problems


def join(rows):
    """One row a kernel and shape, in the order of the benchmarks."""
    ceilings = {r["kernel"]: r for r in rows if r["kernel"].startswith("ceiling_")}
    joined = {}
    for row in rows:
        if row.get("ms") is not None:
            joined.setdefault((row["kernel"], row["shape"]), dict(row))
    for row in rows:
        mine = joined.get((row["kernel"], row["shape"]))
        if mine is None or row.get("alternative_ms") is None:
            continue
        if row["alternative_ms"] <= mine.get("alternative_ms", float("inf")):
            mine["alternative"], mine["alternative_ms"] = row["alternative"], row["alternative_ms"]
    for row in joined.values():
        if row.get("alternative_ms"):
            row["speedup"] = row["alternative_ms"] / row["ms"]
        ceiling = ceilings.get(row.get("against"), {}).get("tflops")
        if row.get("roofline_share") is None and ceiling and row.get("tflops"):
            row["roofline_share"] = row["tflops"] / ceiling
    return list(joined.values())


def granularity(rows):
    """[(line, ratio)]: time of a MoE layer at G over the same layer at G = 1."""
    layers = {}
    for row in rows:
        if row["kernel"] == "moe_layer":
            words = dict(word.split("=", 1) for word in row["shape"].split())
            key = words["model"], words["flops"]
            layers.setdefault(key, {})[int(words["G"])] = row["ms"]
    return [(f"{model}, {flops}x FLOPs, G = {g} over G = 1", ms / times[1])
            for (model, flops), times in layers.items() if 1 in times
            for g, ms in sorted(times.items()) if g != 1]


def number(row, key, form):
    return form.format(row[key]) if row.get(key) is not None else ""


def cells(row):
    rate = number(row, "tflops", "{:.1f} TFLOP/s") or number(row, "gbps", "{:.0f} GB/s")
    return [row["kernel"], row["shape"], number(row, "ms", "{:.4f}"), rate,
            number(row, "roofline_share", "{:.0%}"),
            number(row, "speedup", "{:.2f}"), row.get("alternative") or ""]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def render(facts, parts, rows, problems):
    lines = ["# GPU check", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", *table(["part", "result", "seconds"], [
        [name, "ok" if status == "0" else status if status.startswith("skipped")
         else f"FAILED with code {status}", seconds] for name, status, seconds in parts])]
    if rows:
        lines += ["", *table(["kernel", "shape", "ms", "rate", "of its roofline",
                              "times as fast as", "alternative"], map(cells, rows))]
    ratios = granularity(rows)
    if ratios:
        lines += ["", *table(["MoE layer, forward and backward", "time"],
                             [[name, f"{ratio:.3f}"] for name, ratio in ratios])]
    lines += [f"\n{problem}" for problem in problems]
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    parts = [line.split("\t") for line in
             (folder / "parts.tsv").read_text(encoding="utf-8").splitlines()]
    rows, problems = read_lines(folder)
    rows = join(rows)
    text = render(facts, parts, rows, problems)
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(
        {"facts": facts, "parts": parts, "measurements": rows,
         "granularity": granularity(rows), "problems": problems}, indent=1), encoding="utf-8")
    print(text, end="")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
