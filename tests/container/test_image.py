"""What is in the server's image, and what is not."""

import json

from tests.container.conftest import BASES, CONTAINER
from tests.container.engine import docker

pytestmark = CONTAINER
PACKAGES = "/opt/venv/lib/python3.11/site-packages"
# On top of the base image; 870 MB when this was written.
LARGEST = 1_000_000_000


def inspect(image: str) -> dict[str, object]:
    details: dict[str, object] = json.loads(docker("image", "inspect", image))[0]
    return details


def inside(image: str, command: str) -> str:
    return docker("run", "--rm", "--read-only", "--tmpfs=/tmp", "--entrypoint=sh", image, "-c", command)


def test_the_image_without_its_base_is_smaller_than_a_gigabyte(image: str) -> None:
    size, base = (inspect(name)["Size"] for name in (image, BASES[0]))
    assert isinstance(size, int) and isinstance(base, int)
    assert size - base < LARGEST


def test_nobody_is_root_and_the_entrypoint_is_one_program(image: str) -> None:
    config = inspect(image)["Config"]
    assert isinstance(config, dict)
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"][:4] == ["python", "-m", "launcher", "serve"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert {"title", "version", "revision", "licenses", "description"} <= {
        label.removeprefix("org.opencontainers.image.") for label in config["Labels"]
    }


def test_the_image_holds_no_compiler_no_installer_of_its_own_and_no_cache(image: str) -> None:
    programs = "command -v gcc cc g++ as ld git; ls /opt/venv/bin | grep -E '^(pip|uv)'"
    assert inside(image, f"{programs}; true") == ""
    assert inside(image, "find /var/lib/apt/lists /root/.cache /tmp -type f 2>/dev/null; true") == ""


def test_nothing_in_the_image_belongs_to_the_user_but_the_folder_of_the_gateway(image: str) -> None:
    paths = inside(image, "find / -xdev -user 10001 -not -path '/proc/*' -not -path '/tmp*' 2>/dev/null; true")
    assert paths.split() == ["/run/gateway"]


def test_torch_and_its_decoder_work_without_the_libraries_of_cuda(image: str) -> None:
    program = (
        "import torch; assert not torch.cuda.is_available(); print((torch.ones(2, 3) @ torch.ones(3, 1)).sum().item())"
    )
    assert inside(image, f'python -W error -c "{program}"').split() == ["6.0"]
    assert inside(image, f"du -sm {PACKAGES}/nvidia | cut -f1").strip() in ("1", "2", "3")


def test_calling_the_gpu_ends_the_process_with_a_sentence(image: str) -> None:
    program = "import ctypes, torch; ctypes.CDLL(torch.__path__[0] + '/lib/libtorch_cuda.so').cuFileRead()"
    assert "which needs a GPU, and this image is for CPUs" in inside(image, f'python -c "{program}" 2>&1; true')
