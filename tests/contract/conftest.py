from pathlib import Path

import pytest

from tests.repository import ROOT
from training.export import package

BUNDLE = ROOT / "model_store" / "flowers"


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the bundle that we ship, packaged now."""
    output = tmp_path_factory.mktemp("archive") / "flowers.mar"
    package.build(BUNDLE, output, "cpu")
    return output
