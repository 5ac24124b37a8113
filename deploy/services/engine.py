"""What `make compose-check` needs where no image can be pulled: compose as a program, and a base file system from Debian."""

import shutil
from pathlib import Path

import cache
import toolchain
from cache import Unavailable

COMPOSE_VERSION = "2.40.3"
COMPOSE = "github.com/docker/compose/v2/cmd"
BASE_PACKAGES = "python3,python3-venv,python3-dev,ca-certificates,wget"
BASE_VERSION = 2  # raise it when the packages change


def fetch_compose() -> Path:
    """A folder with the program docker-compose; `go install` refuses it, because of an exclude line in its go.mod."""

    def build(folder: Path) -> None:
        source = folder / "source"
        source.mkdir()
        (source / "go.mod").write_text("module compose\n\ngo 1.24\n")
        toolchain.run(toolchain.go(), "get", f"{COMPOSE}@v{COMPOSE_VERSION}", cwd=source)
        stamp = f"-X github.com/docker/compose/v2/internal.Version=v{COMPOSE_VERSION}"
        toolchain.run(toolchain.go(), "build", "-ldflags", stamp, "-o", folder / "docker-compose", COMPOSE, cwd=source, CGO_ENABLED="0")
        shutil.rmtree(source)

    return cache.entry(f"compose-{COMPOSE_VERSION}", build)


def fetch_base() -> Path:
    """A folder with base.tar, a file system with Python, for `docker import`. Needs root."""

    def build(folder: Path) -> None:
        debootstrap = shutil.which("debootstrap", path="/usr/sbin:/sbin:/usr/bin")
        if debootstrap is None:
            raise Unavailable("debootstrap is not on this machine (apt-get install debootstrap)")
        root = folder / "root"
        toolchain.run(debootstrap, "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", root)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        shutil.rmtree(root / "var/cache/apt/archives")
        toolchain.run("tar", "-C", root, "-cf", folder / "base.tar", ".")
        shutil.rmtree(root)

    return cache.entry(f"base-bookworm-{BASE_VERSION}", build)
