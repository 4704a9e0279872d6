#!/usr/bin/env python3
"""Tests of the scripts: each check must flag what it is for. Run by scripts/dev check."""

import importlib.util
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(SCRIPTS))

import budget  # noqa: E402
import check_docs  # noqa: E402
import check_layers  # noqa: E402
import check_openings  # noqa: E402
import compare_compression  # noqa: E402
import kernel_resources  # noqa: E402
import new_op  # noqa: E402
import plot_loss  # noqa: E402
from test_count_tests import CountTests, Run  # noqa: E402, F401
from test_gpu_check import GpuCheck, Judgement  # noqa: E402, F401
from test_slurm import Slurm  # noqa: E402, F401

spec = importlib.util.spec_from_file_location("corpus", SCRIPTS / "corpus/fetch_public_domain.py")
corpus = importlib.util.module_from_spec(spec)
spec.loader.exec_module(corpus)


class InFolder(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


class Openings(InFolder):
    KERNEL = ("// Sums, CUDA.\n//\n// Shapes    x (N).\n// Launch    one block.\n"
              "// Numerics  fp32.\n// Traffic   x once.\n// See       tests/cuda/sums_test.cpp.\n")

    def problems(self, name, text):
        self.write(name, text)
        return check_openings.check(self.folder)[0]

    def test_takes_a_comment_or_the_header_of_the_same_name(self):
        self.assertEqual(self.problems("src/core/a.cpp", "// What a does.\n#include <x>\n"), [])
        self.assertEqual(self.problems("src/core/b.cpp", '#include "grist/core/b.h"\n'), [])

    def test_flags_a_source_that_does_not_say_what_it_is_for(self):
        problems = self.problems("src/core/a.cpp", '#include "grist/core/b.h"\n')
        self.assertEqual(problems, ["src/core/a.cpp:1: no comment says what this file is for"])
        self.assertEqual(len(self.problems("include/b.h", "#pragma once\nint b;\n")), 2)

    def test_wants_the_headings_of_a_kernel_and_what_they_name(self):
        self.write("tests/cuda/sums_test.cpp", "// Sums.\n")
        self.assertEqual(self.problems("kernels/cuda/sums.cu", self.KERNEL), [])
        for heading in check_openings.HEADINGS:
            with self.subTest(heading):
                text = self.KERNEL.replace(heading, "Remark")
                self.assertEqual(len(self.problems("kernels/cuda/sums.cu", text)), 1)
        text = self.KERNEL.replace("sums_test", "gone_test")
        self.assertIn("tests/cuda/gone_test.cpp does not exist",
                      self.problems("kernels/cuda/sums.cu", text)[0])

    def test_knows_which_files_hold_kernels(self):
        self.assertEqual(len(self.problems("kernels/cpu/a.cpp", "// A.\n")), 1)
        self.assertEqual(len(self.problems("kernels/cuda/b.cuh", "// B.\n__global__ void b();\n")),
                         2)
        self.assertEqual(len(self.problems("kernels/cuda/c.cuh", "// Shared by kernels.\n")), 2)


class NewOp(InFolder):
    def setUp(self):
        super().setUp()
        for name in [*new_op.ENTRIES, new_op.BACKENDS]:
            self.write(name, (SCRIPTS.parent / name).read_text(encoding="utf-8"))
        self.write("src/ops/operand.h", "#pragma once\n// Checks of operands.\n")
        for name in new_op.FILES:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)

    def read(self, name):
        return (self.folder / name).read_text(encoding="utf-8")

    def test_writes_files_that_pass_the_checks(self):
        new_op.begin("soft_cap", self.folder)
        self.assertIn("struct SoftCap {", self.read("include/grist/ops/soft_cap.h"))
        self.assertIn("is not written yet", self.read("kernels/cuda/soft_cap.cu"))
        self.assertEqual(check_openings.check(self.folder)[0], [])
        self.assertEqual(check_layers.check(self.folder)[0], [])

    def test_lists_the_operation_and_every_source_once(self):
        new_op.begin("soft_cap", self.folder)
        self.assertIn("\\\n  X(soft_cap, SoftCap)\n\n", self.read(new_op.BACKENDS))
        for name, (entry, _) in new_op.ENTRIES.items():
            with self.subTest(name):
                words = self.read(name).split()
                entry = entry.format(name="soft_cap")
                self.assertEqual(words.count(entry), 1)
                self.assertLess(words[words.index(entry) - 1], entry)

    def test_puts_the_first_and_the_last_in_place(self):
        new_op.begin("absolute", self.folder)
        new_op.begin("zeta", self.folder)
        self.assertIn("(GRIST_CUDA_SOURCES\n  absolute.cu\n  attention.cu",
                      self.read("kernels/cuda/CMakeLists.txt"))
        self.assertRegex(self.read("kernels/cuda/CMakeLists.txt"), r"weight\.cu\s+zeta\.cu\s+\)")
        self.assertIn("grist_module(ops absolute.cpp attention.cpp",
                      self.read("src/ops/CMakeLists.txt"))

    def test_refuses_bad_names_and_what_is_there(self):
        for name in ("SoftCap", "soft-cap", "", "_x", "swiglu_forward"):
            with self.subTest(name), self.assertRaises(new_op.Problem):
                new_op.begin(name, self.folder)
        new_op.begin("soft_cap", self.folder)
        with self.assertRaises(new_op.Problem):
            new_op.begin("soft_cap", self.folder)


class Layers(InFolder):
    def problems(self, name, text):
        self.write(name, text)
        return check_layers.check(self.folder)[0]

    def test_nobody_above_the_kernels_asks_which_device_it_is(self):
        for line in ("if (ctx.device == Device::cpu) return;", "while (grist::Device::cpu != d)",
                     "if (d != grist::Device::cpu)", "    case Device::cpu: return 1;",
                     "Buffer b(1, Device::cuda, label);"):
            with self.subTest(line):
                self.assertEqual(len(self.problems("src/nn/pass.cpp", line + "\n")), 1)
        self.assertEqual(self.problems("src/nn/pass.cpp", "Buffer b(1, Device::cpu, label);\n"), [])
        self.assertEqual(self.problems("kernels/cuda/a.cpp", "if (d == Device::cuda) {}\n"), [])

    def test_allows_what_points_down(self):
        text = "#include <vector>\n#include <yaml-cpp/yaml.h>\n#include \"grist/core/json.h\"\n"
        self.assertEqual(self.problems("src/config/load.cpp", text), [])
        text = '#pragma once\n#include <cuda_bf16.h>\nasm volatile("");\n'
        self.assertEqual(self.problems("kernels/cuda/ptx/grist_ptx.cuh", text), [])
        self.assertEqual(self.problems("kernels/cuda/launch.h", "#pragma once\n// no <<<>>>\n"), [])

    def test_flags_each_offence(self):
        offences = {
            "src/core/file.cpp": '#include "grist/train/loop.h"\n',
            "src/nn/model.cpp": '#include "grist/data/blend.h"\n',
            "src/data/a.cpp": "#include <yaml-cpp/yaml.h>\n",
            "src/core/log2.cpp": "#include <spdlog/spdlog.h>\n",
            "src/train/loop.cpp": '#include "kernels/backends.h"\n',
            "kernels/cpu/a.cpp": "#include <cblas.h>\n",
            "kernels/cuda/a.cu": '#include "grist/core/check.h"\n',
            "kernels/cuda/b.cu": "kernel<<<1, 32>>>();\n",
            "kernels/cuda/c.cuh": '#pragma once\nasm volatile("");\n',
            "kernels/cuda/d.cu": "#if __CUDA_ARCH__ >= 900\n",
            "kernels/cuda/e.cu": "#include <cub/cub.cuh>\n",
            "kernels/cuda/f.cu": "#include <cooperative_groups.h>\n",
            "kernels/cuda/g.cu": "#include <cuda/barrier>\n",
            "src/app/a.cpp": "#include <iostream>\n",
            "src/optim/a.cpp": '#include "private_of_another.h"\n',
            "src/unknown/a.cpp": '#include "grist/core/file.h"\n',
            "include/grist/nn/a.h": "#pragma once\n#include <fmt/core.h>\n",
            "include/grist/nn/b.h": "struct NoGuard {};\n",
        }
        for name, text in offences.items():
            with self.subTest(name):
                self.setUp()
                self.assertEqual(len(self.problems(name, text)), 1)

    def test_flags_a_second_file_with_a_slow_header(self):
        self.write("src/data/a.cpp", "#include <simdjson.h>\n")
        self.assertEqual(len(self.problems("src/data/b.cpp", "#include <simdjson.h>\n")), 1)


class Docs(InFolder):
    def test_flags_missing_paths_and_links(self):
        path = self.write("page.md", "See `scripts/dev`, `scripts/none.sh` and [it](none.md), not "
                                     "`build/cpu/grist`, `tests/<module>/x`, <https://x.org>.\n"
                                     "```\n./scripts/lost.sh\n./scripts/test.sh\n```\n")
        problems = check_docs.check(path, check_docs.top_level())
        self.assertEqual([p.split(": ")[1] for p in problems],
                         [f"{name} does not exist"
                          for name in ("scripts/none.sh", "none.md", "scripts/lost.sh")])


class Kernels(unittest.TestCase):
    REPORT = """ptxas info    : Compiling entry function '_Z6matmulv' for 'sm_90a'
ptxas info    : Function properties for _Z6helperv
    8 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for _Z6matmulv
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 1024 bytes smem
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized
"""

    def test_reads_ptxas(self):
        kernel = kernel_resources.report(self.REPORT)["_Z6matmulv", "sm_90a"]
        self.assertEqual([kernel.registers, kernel.shared, kernel.stack, kernel.spills],
                         [168, 1024, 16, 36])

    def test_complains(self):
        kernel = kernel_resources.Kernel()
        table = {("kernels/cuda/sm90/a.cu", "matmul"): {"sm_90a": kernel}}
        self.assertEqual(len(list(kernel_resources.judge(table))), 1)
        kernel.instructions["HGMMA"] = 4
        self.assertEqual(list(kernel_resources.judge(table)), [])
        kernel.spills = 4
        self.assertEqual(len(list(kernel_resources.judge(table))), 1)
        self.assertEqual(sum(bool(kernel_resources.COMPLAINT.search(line))
                             for line in self.REPORT.splitlines()), 1)

    def test_names(self):
        self.assertEqual(kernel_resources.shorten(
            "void grist::cuda::(anonymous namespace)::f<float, (int)64>(float*, int)"),
            "f<float, 64>")


class Budget(unittest.TestCase):
    def test_measures_functions(self):
        text = ("namespace a {\n\nstruct S {\n  int f(int x) {\n    return x;\n  }\n};\n\n"
                "int g(int a, std::map<int, int> b,\n      int c) {\n  if (a) {\n  }\n  return c;\n"
                "}\n\n}  // namespace a\n")
        found = list(budget.functions(text.splitlines()))
        self.assertEqual([(start, length) for start, length, _ in found], [(4, 3), (9, 6)])
        self.assertEqual([budget.parameters(header) for _, _, header in found], [1, 3])


class Losses(InFolder):
    def test_metrics_and_picture(self):
        rows = [{"step": i, "loss": 5.0 - i / 10} for i in range(1, 41)] + [
            {"step": 40, "val_loss": 2.0}]
        text = "\n".join(json.dumps(row) for row in rows)
        path = self.write("metrics.jsonl", text + '\n{"step": 41, "lo')
        read = plot_loss.read_metrics(path)
        self.assertEqual(read, rows)
        lines = plot_loss.draw(plot_loss.numbers(read, "loss"), [(40, 2.0)], 20, 5)
        self.assertIn("*", lines[0])
        self.assertTrue(lines[4].endswith("o") or "*" in lines[4])
        self.assertEqual(plot_loss.table(read).splitlines()[1].split("\t")[2], "4.9")

    def test_a_damaged_line_is_an_error(self):
        path = self.write("metrics.jsonl", '{"step": 1\n{"step": 2}\n')
        with self.assertRaisesRegex(ValueError, "metrics.jsonl:1"):
            plot_loss.read_metrics(path)

    def compare(self, val_loss, val_tokens):
        text = "The quick brown fox jumps over the lazy dog. " * 40
        self.write("v.jsonl", json.dumps({"text": text}) + "\n")
        (self.folder / "v.idx").write_bytes(b"MMIDIDX\0\0" + struct.pack("<QB", 1, 8))
        (self.folder / "v.bin").write_bytes(bytes(2 * len(text)))
        self.write("metrics.jsonl", json.dumps(
            {"step": 1, "val_loss": val_loss, "val_tokens": val_tokens or len(text)}))
        return compare_compression.compare(self.folder, self.folder / "v.jsonl",
                                           self.folder / "v")

    def test_compression(self):
        lines, better = self.compare(0.69314718056, None)  # one bit a token, a token a byte
        self.assertEqual(lines[-1].split()[2], "1.000")
        self.assertFalse(better)
        self.assertTrue(self.compare(0.01, None)[1])
        with self.assertRaises(compare_compression.Problem):
            self.compare(0.01, 7)


class Corpus(unittest.TestCase):
    def test_chapters(self):
        lines = ["TITLE", "", "Chapter 1", "", "One", "two.", "", "VOLUME II", "CHAPTER II.", "",
                 "Three.", "", "FINIS"]
        self.assertEqual(corpus.split_chapters(lines), ["One two.", "Three."])

    def test_r_strings(self):
        strings = b"".join(struct.pack(">Ii", 9, len(s)) + s for s in (b"a", b"", "é".encode()))
        raw = b"X\n" + struct.pack(">iiii", 3, 0, 0, 5) + b"UTF-8" + struct.pack(">Ii", 16, 3)
        self.assertEqual(corpus.r_strings(raw + strings, "x"), ["a", "", "é"])

    def test_hold_out_depends_on_the_name_alone(self):
        held = sum(corpus.held_out(f"document {i}") for i in range(4000))
        self.assertTrue(150 < held < 250, held)

    def test_uncompress_reports_damage(self):
        with self.assertRaises(corpus.Problem):
            corpus.uncompress(b"\xff" * 40, "x")


class Shell(unittest.TestCase):
    def test_dev_explains_itself_and_refuses_nonsense(self):
        run = subprocess.run([SCRIPTS / "dev", "help"], capture_output=True, text=True, check=True)
        self.assertIn("budget", run.stdout)
        run = subprocess.run([SCRIPTS / "dev", "nonsense"], capture_output=True, check=False)
        self.assertEqual(run.returncode, 64)


if __name__ == "__main__":
    unittest.main()
