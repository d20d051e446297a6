"""`python -m ui [STREAMLIT OPTION ...]`: start the page at http://127.0.0.1:8501."""

import sys
from pathlib import Path

from visionserve import missing_package

with missing_package.explained("python -m ui", "ui"):
    from streamlit.web import cli


def main() -> int:
    """Run Streamlit with the page in the foreground; return its exit code."""
    code: int = cli.main(["run", str(Path(__file__).with_name("page.py")), *sys.argv[1:]], standalone_mode=False) or 0
    return code


if __name__ == "__main__":
    sys.exit(main())
