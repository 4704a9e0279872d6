"""A Python with the packages that a by-hand script needs; build and tests need none of this.

use(packages) returns when the running interpreter is the right one. Otherwise it starts the script
again: with GRIST_PYTHON when that is set, else with a virtual environment in .venv/NAME, made here
with the pinned packages from PyPI (printed, about 2 GB with PyTorch).
"""

import os
import pathlib
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
TRUTH_PACKAGES = ["torch==2.15.0", "transformers==5.23.0", "safetensors==0.8.0", "numpy==2.4.6"]


def use(packages, name="truth"):
    if os.environ.get("GRIST_PYTHON_READY") == "1":
        return
    os.environ["GRIST_PYTHON_READY"] = "1"
    python = os.environ.get("GRIST_PYTHON") or str(make_environment(name, packages))
    try:
        os.execv(python, [python, *sys.argv])
    except OSError as error:
        sys.exit(f"GRIST_PYTHON={python}: {error.strerror}; give the path of a Python interpreter")


def make_environment(name, packages):
    """The Python of .venv/NAME, which is made or made again when it has other packages."""
    folder = ROOT / ".venv" / name
    python = folder / "bin" / "python"
    stamp = folder / "packages.txt"
    wanted = "\n".join(packages) + "\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making {folder.relative_to(ROOT)} with {' '.join(packages)}", flush=True)
    try:
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"cannot make {folder}: {error}; on Debian: apt-get install python3-venv; or "
                 "set GRIST_PYTHON to a Python that has them")
    stamp.write_text(wanted)
    return python
