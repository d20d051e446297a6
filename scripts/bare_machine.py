#!/usr/bin/env python3
"""Run the README's quick start on a bare Debian: Python, venv, make and git in a folder of its own, and nothing else.

    sudo scripts/bare_machine.py trixie DIR [--user] [OPTION ...]

DIR is made with debootstrap (2 minutes, 0.4 GB) unless it is there. The commit that is checked out is cloned into it,
and scripts/check_quick_start.py, whose options the others are, is run there: as root, or as an ordinary user who may
write nowhere but at home. The machine shares this one's network and nothing else. Standard library only.

Exit codes: 0 and 1 are those of scripts/check_quick_start.py, 2 the machine cannot be made here.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUITES = {"bookworm": "3.11", "trixie": "3.13", "sid": "3.14"}  # and the Python that each had when this was written
PACKAGES = "python3,python3-venv,make,ca-certificates,git"
# How this machine reaches the network: names, certificates, pip's settings.
FILES = ("etc/resolv.conf", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
VARIABLES = re.compile(r"(?i)(pip|uv)_\w+|(https?|all|no)_proxy|ssl_cert_(file|dir)")
PROVIDED_BY = {"debootstrap": "debootstrap", "git": "git", "chroot": "coreutils", "unshare": "util-linux"}
# In a mount and process namespace of its own: all that is started there ends with the command. $1 is the machine, $2
# the user, $3 the working folder; the rest is the environment and the command.
INSIDE = """
mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && mount --rbind /sys "$1/sys" || exit 2
machine=$1 user=$2 folder=$3
shift 3
exec chroot "$machine" setpriv --reuid "$user" --regid "$user" --clear-groups env -i "--chdir=$folder" "$@"
"""


class Unusable(Exception):
    """The machine cannot be made; the message is one sentence."""


def main() -> int:
    """Make the machine if it is not there and run the check in it; return a process exit code."""
    parser = argparse.ArgumentParser(description="Run the README's quick start on a bare Debian.")
    parser.add_argument("suite", choices=SUITES, help=f"Debian with Python {', '.join(SUITES.values())}")
    parser.add_argument("folder", type=Path, help="the machine's folder")
    parser.add_argument("--user", action="store_true", help="as an ordinary user, not as root")
    parser.add_argument("--mirror", help="of Debian's packages; default: debootstrap's own")
    args, options = parser.parse_known_args()
    machine = args.folder.absolute()
    try:
        if os.getuid() != 0:
            raise Unusable("only root can make and enter a machine: use sudo.")
        if not (machine / "etc" / "debian_version").exists():
            make(args.suite, machine, args.mirror)
        connect(machine)
        home = clone(machine, args.user)
        unshare = [program("unshare"), "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", INSIDE, "sh"]
    except Unusable as problem:
        print(f"bare_machine.py: {problem}", file=sys.stderr)
        return 2
    settings = [f"{name}={value}" for name, value in os.environ.items() if VARIABLES.fullmatch(name)]
    user = "user" if args.user else "root"
    environment = [f"HOME={home}", f"USER={user}", "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", *settings]
    command = ["python3", "scripts/check_quick_start.py", *options]
    return subprocess.call([*unshare, str(machine), user, f"{home}/visionserve", *environment, *command])


def program(name: str) -> str:
    """Return the path of an installed program."""
    path = shutil.which(name)
    if path is None:
        raise Unusable(f"{name} is missing: on Debian, apt-get install {PROVIDED_BY[name]}")
    return path


def make(suite: str, machine: Path, mirror: str | None) -> None:
    """Install Debian's smallest system and the packages into a folder, and add an ordinary user."""
    print(f"making {machine} ...", flush=True)
    machine.mkdir(parents=True, exist_ok=True)
    command = [program("debootstrap"), "--variant=minbase", f"--include={PACKAGES}", suite, str(machine)]
    command += [mirror] if mirror else []
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise Unusable(f"debootstrap failed: {' '.join(done.stdout.splitlines()[-2:])}")
    subprocess.run([program("chroot"), str(machine), "useradd", "--create-home", "user"], check=True)


def connect(machine: Path) -> None:
    """Give the machine what this one needs to reach the network."""
    for name in FILES:
        if Path("/", name).exists():
            shutil.copyfile(Path("/", name), machine / name)


def clone(machine: Path, ordinary: bool) -> str:
    """Clone the commit that is checked out into a fresh folder of the machine; return the home it is in."""
    home = "/home/user" if ordinary else "/root"
    target = machine / home.strip("/") / "visionserve"
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([program("git"), "clone", "--quiet", str(ROOT), str(target)], check=True)
    changed = subprocess.run(
        [program("git"), "status", "--short"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    if changed.stdout:
        print("Changes that are not committed are left out.", flush=True)
    if ordinary:
        subprocess.run([program("chroot"), str(machine), "chown", "--recursive", "user:", home], check=True)
    return home


if __name__ == "__main__":
    sys.exit(main())
