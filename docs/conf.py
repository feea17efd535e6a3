"""Settings of the documentation site, which `make docs` builds from the repository's root into .cache/site.

Pages are Markdown files where they lie: those of docs/, and the READMEs of experiments and configs. No page loads
anything from a network.
"""

import logging
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
os.environ["PYTHONPATH"] = str(ROOT)  # the kernels of the notebooks import this copy
os.environ.pop("MPLBACKEND", None)  # with one the kernels would draw no pictures into the pages
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a warning of their debugger

# Neither the user's own settings of IPython nor its hints on ports are part of the pages.
os.environ["IPYTHONDIR"] = str(ROOT / ".cache" / "ipython")
KERNEL = ROOT / ".cache" / "ipython" / "profile_default" / "ipython_kernel_config.py"
KERNEL.parent.mkdir(parents=True, exist_ok=True)
KERNEL.write_text('c.IPKernelApp.log_level = "ERROR"\n')
logging.getLogger("traitlets").setLevel(logging.WARNING)

project = "score_sde"
release = re.search(r'__version__ = "(.+)"', (ROOT / "score_sde" / "__init__.py").read_text())[1]
copyright = ""
html_title = f"{project} {release}"

extensions = ["myst_nb", "sphinx.ext.viewcode", "sphinx.ext.githubpages", "api_reference", "offline_math"]

root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "docs/notebooks/*.py",
    "experiments/*/README.md",
    "configs/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".*", "runs", "wandb", "build", "dist", "tests", "score_sde", "**/__pycache__", "*.egg-info"]

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"  # outputs are always those of today's code
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 120
nb_ipywidgets_js = {}  # by default from a CDN
nb_merge_streams = True

html_theme = "furo"
html_math_renderer = "mathml"
html_extra_path = ["root"]  # an index.html that leads to docs/index.html
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
smartquotes = False  # --mode stays --mode

viewcode_follow_imported_members = False
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries = False  # a thousand entries, which each page would copy; a module lists its names itself
