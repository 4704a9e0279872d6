"""Tests of the sums that .ci/run ends with. Run by test_scripts.py."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from count_tests import count

ROOT = pathlib.Path(__file__).resolve().parent.parent
CTEST = """\
      Start  1: core/File.IsRead
 1/4 Test  #1: core/File.IsRead ...............   Passed    0.01 sec
 2/4 Test #12: core/File.IsFull ...............***Skipped   0.01 sec
 3/4 Test #13: core/File.IsTorn ...............***Failed    0.01 sec
 4/4 Test #14: core/File.Hangs ................***Timeout 300.02 sec
50% tests passed, 2 tests failed out of 4
"""


class CountTests(unittest.TestCase):
    def test_ctest_is_counted_test_by_test(self):
        self.assertEqual(count(CTEST), (1, 2, 1))

    def test_a_crash_and_a_missing_program_are_not_passed(self):
        text = ("1/2 Test #1: a/B.C ......***Exception: SegFault  0.10 sec\n"
                "2/2 Test #2: cuda/gpu ...***Not Run (Disabled)   0.00 sec\n")
        self.assertEqual(count(text), (0, 1, 1))

    def test_unittest_checks_and_smoke_are_counted(self):
        text = ("layers: 300 files, 0 problems\ndocs: 20 files, 2 problems\n"
                "Ran 12 tests in 0.3s\n\nFAILED (failures=1, errors=2, skipped=3)\n"
                "smoke: step 80, loss 6.000 -> 4.000\nbundle: skipped, there is no patchelf\n")
        self.assertEqual(count(text), (1 + 6 + 1, 1 + 3, 3 + 1))

    def test_the_words_of_other_programs_count_nothing(self):
        self.assertEqual(count("OK\n[1/3] Building CXX object a.o\nstep 5 loss 3.0\n"), (0, 0, 0))


class Run(unittest.TestCase):
    """.ci/run with stages that print instead of testing."""

    def last_line(self, **printed):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / ".ci").mkdir()
            (root / "scripts").mkdir()
            text = (ROOT / ".ci/run").read_text(encoding="utf-8")
            text = re.sub(r"(?m)^stage .*\n", "", text)
            stages = "".join(f"stage {name} printf '%s\\n' {words!r}\n" for name, words in printed.items())
            (root / ".ci/run").write_text(text.replace("\nfinish\n", f"\n{stages}finish\n"), encoding="utf-8")
            shutil.copy(ROOT / "scripts/count_tests.py", root / "scripts")
            run = subprocess.run(["bash", root / ".ci/run"], capture_output=True, text=True, check=False,
                                 env=dict(os.environ, LC_ALL="C"))
        return run.returncode, run.stdout.splitlines()[-1]

    def test_the_last_line_is_the_sum_of_all_stages(self):
        ended = self.last_line(a="layers: 3 files, 0 problems", b="smoke: step 9, loss 3 -> 2",
                               c="cuda: skipped, there is no nvcc")
        self.assertEqual(ended, (0, "2 passed, 0 failed, 1 skipped"))

    def test_a_stage_without_a_test_fails_and_ends_the_run(self):
        ended = self.last_line(a="layers: 3 files, 0 problems", b="all is well", c="docs: 1 file, 0 problems")
        self.assertEqual(ended, (1, "1 passed, 1 failed, 0 skipped"))
