"""The page on its own: what it imports, and what it does about more than a person can look at."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LIBRARYS_OWN = ("torch", "torchvision", "onnxruntime", "openvino", "safetensors", "sklearn", "ts", "matplotlib")


def test_the_page_needs_none_of_the_librarys_requirements() -> None:
    program = (
        "import sys\n"
        f"for name in {LIBRARYS_OWN}: sys.modules[name] = None\n"  # importing them is an ImportError from here on
        "import ui.about, ui.predictions, ui.card, ui.markup, ui.feedback, ui.overlay, ui.result, ui.settings\n"
        "own = {n.split('.')[0] + '.' + n.split('.')[1] for n in sys.modules if n.startswith('visionserve.')}\n"
        "assert own == {'visionserve.client', 'visionserve.files'}, own\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_of_the_page_has_the_name_of_pythons_own() -> None:
    # Streamlit puts the page's folder first on the path: a module html there breaks every library that imports html.
    assert {path.stem for path in (ROOT / "ui").glob("*.py")} & sys.stdlib_module_names == set()
