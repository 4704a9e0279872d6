"""Tests of scripts/gpu_check.sh and what it starts, in a bundle of stand-ins for GPU programs."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(SCRIPTS))

import gpu_report  # noqa: E402
import gpu_training  # noqa: E402

NVIDIA_SMI = """case $1 in
  -L) echo "GPU 0: A stand-in" ;;
  *memory.total*) echo 81920 ;;
  *) echo "a word" ;;
esac
"""
BENCH = """while (($# > 0)); do
  if [[ $1 == --json ]]; then
    echo '{"kernel": "ceiling_bf16", "shape": "", "ms": 1, "tflops": 800}' >>"$2"
    echo '{"kernel": "linear_forward", "shape": "N=1 I=2 O=3", "ms": 2, "tflops": 400, "gbps": null,
      "against": "ceiling_bf16", "alternative": "a", "alternative_ms": 3}' | tr -d '\\n' >>"$2"
    echo >>"$2"
    echo '{"kernel": "linear_forward", "shape": "N=1 I=2 O=3", "alternative": "b",' \
      '"alternative_ms": 2.5}' >>"$2"
  fi
  shift
done
"""


class GpuCheck(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        (self.folder / "scripts").mkdir()
        for name in ("gpu_check.sh", "gpu_report.py", "gpu_training.py", "bench_torch_gpu.py"):
            shutil.copy(SCRIPTS / name, self.folder / "scripts")
        (self.folder / "VERSION").write_text("commit: abc\n")
        self.program("bin/cuda_gpu_test", 'echo "  tests ran"\n')
        self.program("bin/cuda_model_gpu_test", "")
        self.program("bin/cuda_bench", BENCH)
        self.program("bin/grist", "exit 71\n")

    def program(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/usr/bin/env bash\n" + text)
        path.chmod(0o755)

    def check(self, *arguments, smi=NVIDIA_SMI):
        self.program("path/nvidia-smi", smi)
        self.program("path/compute-sanitizer", "exit 3\n")
        self.program("path/no-python", "exit 1\n")
        env = os.environ | {"PATH": f"{self.folder}/path:{os.environ['PATH']}",
                            "GRIST_PYTHON": f"{self.folder}/path/no-python"}
        env.pop("OUT", None)
        return subprocess.run([self.folder / "scripts/gpu_check.sh", *arguments], env=env,
                              capture_output=True, text=True, check=False)

    def report(self):
        return json.loads((self.folder / "gpu_check/report.json").read_text())

    def test_one_failure_does_not_stop_the_others(self):
        run = self.check("--quick")
        self.assertEqual(run.returncode, 1, run.stderr)
        report = self.report()
        self.assertEqual({name: status for name, status, _ in report["parts"]},
                         {"tests": "0", "model_tests": "0", "training": "1", "bench": "0",
                          "moe_layer": "skipped: bin/moe_layer_bench is not built",
                          "torch": "skipped: no PyTorch that sees the GPU; GRIST_PYTHON names the "
                                   "interpreter",
                          "memcheck": "3", "synccheck": "3", "racecheck": "skipped: --quick"})
        self.assertIn("code 71", run.stdout)
        linear = report["measurements"][1]
        self.assertEqual([linear["roofline_share"], linear["alternative"], linear["speedup"]],
                         [0.5, "b", 1.25])
        self.assertIn("| linear_forward | N=1 I=2 O=3 | 2.0000 | 400.0 TFLOP/s | 50% | 1.25 | b |",
                      run.stdout)
        self.assertEqual(report["facts"]["commit"], "abc")

    def test_only_what_is_asked_for(self):
        run = self.check("--only", "tests,bench")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual([name for name, _, _ in self.report()["parts"]], ["tests", "bench"])

    def test_refuses_without_a_gpu(self):
        self.assertEqual(self.check(smi="exit 9\n").returncode, 69)
        self.assertEqual(self.check("--nonsense").returncode, 64)


class Judgement(unittest.TestCase):
    def test_granularity(self):
        rows = [{"kernel": "moe_layer", "shape": f"model=11b flops=1 G={g} N=9", "ms": ms}
                for g, ms in ((1, 2.0), (8, 2.2))]
        (text, ratio), = gpu_report.granularity(rows)
        self.assertEqual(text, "11b, 1x FLOPs, G = 8 over G = 1")
        self.assertAlmostEqual(ratio, 1.1)

    def test_losses(self):
        self.assertAlmostEqual(gpu_training.same_losses("x", [2.02], [2.0], 0.02), 0.01)
        for wrong in ([2.1], [float("nan")], [None]):
            with self.assertRaises(gpu_training.Failed):
                gpu_training.same_losses("x", wrong, [2.0], 0.02)
        gpu_training.falls("x", [7.0] + [4.0] * 20)
        with self.assertRaises(gpu_training.Failed):
            gpu_training.falls("x", [7.0] * 20)

    def test_layers_fit_the_memory(self):
        self.assertEqual([gpu_training.layers_for(gib) for gib in (24, 80, 140, 1000)],
                         [1, 6, 12, 16])


if __name__ == "__main__":
    unittest.main()
