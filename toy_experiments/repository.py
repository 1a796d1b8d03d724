"""Lets the scripts in this folder import the rest of the repository.

`python toy_experiments/x.py` puts only x.py's own folder on Python's path. Importing this module
first adds the repository's root, where diffusion_ql.py and the package toy_experiments are found.
Only scripts need it.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "figures"
sys.path.insert(0, str(HERE.parent))
