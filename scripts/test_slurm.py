"""Tests of scripts/slurm/train.sbatch against a fake scheduler: fake srun, mpirun and scontrol in
PATH. Run by scripts/test_scripts.py."""

import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parent / "slurm/train.sbatch"

# A run of STEPS steps that saves what it has when USR1 comes: `codes` holds what the slices do,
# one word each: a code to end with at once, "CODE+N" after N more steps, "CODE=N" at step N, "signal" to wait for USR1,
# "kill" to be killed, "early" to end with 76 before there is a folder.
LAUNCHER = r"""#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$FAKE/launches"
checkpoints=$(sed -n 's/.*run\.dir=\([^ ]*\).*/\1/p' <<<"$*")/checkpoints
word=$(sed -n 1p "$FAKE/slices")
sed -i 1d "$FAKE/slices"
if [[ $word == early ]]; then exit 76; fi
mkdir -p "$checkpoints" "$checkpoints/step-00099999.tmp-x-1"
save() {
  local newest
  newest=$(ls "$checkpoints" | sed -n 's/^step-\([0-9]*\)$/\1/p' | tail -n 1)
  mkdir "$(printf '%s/step-%08d' "$checkpoints" $((10#${newest:-0} + $1)))"
}
case $word in
  signal)
    trap 'sleep 0.02; save 5; exit 75' USR1
    touch "$FAKE/ready"
    while :; do sleep 0.02; done
    ;;
  kill) kill -KILL $$ ;;
  *=*) mkdir "$(printf '%s/step-%08d' "$checkpoints" "${word#*=}")"; exit "${word%=*}" ;;
  *+*) save "${word#*+}"; exit "${word%+*}" ;;
  *) exit "$word" ;;
esac
"""
SCONTROL = '#!/usr/bin/env bash\necho "$*" >>"$FAKE/requeues"\n'


class Slurm(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        for name, text in (("srun", LAUNCHER), ("mpirun", LAUNCHER), ("scontrol", SCONTROL)):
            path = self.folder / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755)
        self.environment = dict(
            os.environ, FAKE=str(self.folder), PATH=f"{self.folder}:{os.environ['PATH']}",
            SLURM_JOB_ID="77", SLURM_NTASKS="16", GRIST_RUN_DIR=str(self.folder / "run"),
            GRIST_CONFIG="c.yaml", GRIST_BINARY="grist")

    def lines(self, name):
        path = self.folder / name
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def job(self, *slices, launcher="srun", send=None):
        """Runs slices until one is not requeued; the codes of all."""
        (self.folder / "slices").write_text("\n".join(slices) + "\n", encoding="utf-8")
        codes = []
        while True:
            requeues = len(self.lines("requeues"))
            with subprocess.Popen(["bash", str(SCRIPT)], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL,
                                  env=dict(self.environment, GRIST_LAUNCHER=launcher)) as process:
                if send is not None:
                    self.send_when_ready(process, send)
                codes.append(process.wait(timeout=30))
            if len(self.lines("requeues")) == requeues:
                return codes

    def send_when_ready(self, process, number):
        ready = self.folder / "ready"
        while process.poll() is None:
            if ready.exists():
                ready.unlink()
                process.send_signal(number)
                return
            time.sleep(0.01)

    def test_decisions(self):
        for slices, codes in ((["0"], [0]), (["65"], [65]), (["78"], [78]), (["79"], [79]),
                              (["75+1", "0"], [75, 0]), (["76+1", "0"], [76, 0]),
                              (["137+1", "0"], [137, 0]), (["kill", "0+1"], [137, 0])):
            with self.subTest(slices):
                self.setUp()
                self.assertEqual(self.job(*slices), codes)
                self.assertEqual(self.lines("requeues"), ["requeue 77"] * (len(codes) - 1))

    def test_twenty_slices_are_one_run(self):
        self.assertEqual(self.job(*["signal"] * 20, "0", send=signal.SIGUSR1), [75] * 20 + [0])
        steps = sorted(p.name for p in (self.folder / "run/checkpoints").glob("step-*[0-9]"))
        self.assertEqual([s for s in steps if "tmp" not in s],
                         [f"step-{5 * i:08d}" for i in range(1, 21)])
        self.assertEqual([p.name for p in self.folder.glob("run.*")], [])

    def test_a_cancelled_job_saves_and_stays_away(self):
        self.assertEqual(self.job("signal", send=signal.SIGTERM), [75])
        self.assertTrue((self.folder / "run/checkpoints/step-00000005").exists())

    def test_restarts_without_progress_are_bounded(self):
        self.assertEqual(self.job("76", "76", "76", "76"), [76, 76, 93])
        self.setUp()  # a new checkpoint starts the count again
        self.assertEqual(self.job("75+8", "kill", "76", "76+9", "75", "76", "76", "0"),
                         [75, 137, 76, 76, 75, 76, 93])

    def test_a_damaged_step_that_is_passed_over_hides_no_progress(self):
        (self.folder / "run/checkpoints/step-00000100").mkdir(parents=True)
        self.assertEqual(self.job("75=5", "76=10", "75=15", "137=20", "0"), [75, 76, 75, 137, 0])

    def test_a_start_that_made_no_folder(self):
        self.environment["GRIST_RUN_DIR"] = str(self.folder / "runs/a")
        self.assertEqual(self.job("early", "0+1"), [76, 0])

    def test_launchers(self):
        self.job("0", launcher="mpirun")
        run = f"grist train c.yaml --set run.dir={self.folder}/run"
        self.assertEqual(self.lines("launches"), [f"mpirun -np 16 {run}"])
        self.job("0")
        self.assertEqual(self.lines("launches")[1:], [f"srun --kill-on-bad-exit=1 {run}"])
        self.assertEqual(self.job("0", launcher="aprun"), [64])


if __name__ == "__main__":
    unittest.main()
