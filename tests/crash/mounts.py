"""A small tmpfs in a mount namespace of its own, reached from outside through /proc."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.needs import need

PAGE = os.sysconf("SC_PAGESIZE") if hasattr(os, "sysconf") else 4096
_HOLD = 'mount -t tmpfs -o "$1" tmpfs "$2" && echo mounted && exec cat'


class Disk:
    """A mounted tmpfs. `path` leads to it from this process and its children."""

    def __init__(self, holder: int, mounted: Path) -> None:
        self._holder = holder
        self._mounted = mounted
        self.path = Path(f"/proc/{holder}/root{mounted}")
        self._ballast = self.path / "ballast"

    def remount(self, mode: str) -> bool:
        """Mount it again as `ro` or `rw`; return whether the system did, which open files prevent.

        With source and type named, so that mount adds no options that it finds in the mount's own
        line: a user of the outer namespace stands there, who does not exist in the inner one.
        """
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        enter = ["nsenter", "--target", str(self._holder), "--mount", *user]
        again = ["mount", "-n", "-t", "tmpfs", "-o", f"remount,{mode}", "tmpfs", str(self._mounted)]
        return subprocess.run([*enter, *again], check=False, capture_output=True).returncode == 0

    def fill(self, *, but: int) -> None:
        """Leave `but` pages free."""
        self.free()
        with self._ballast.open("wb", buffering=0) as file:
            status = os.statvfs(self.path)
            pages = status.f_bavail * status.f_frsize // PAGE
            assert pages >= but
            for _ in range(pages - but):
                file.write(bytes(PAGE))
        status = os.statvfs(self.path)
        assert status.f_bavail * status.f_frsize == but * PAGE

    def fill_names(self, *, but: int) -> None:
        """Leave room for `but` more names."""
        self.free()
        self._ballast.mkdir()
        for number in range(os.statvfs(self.path).f_favail - but):
            (self._ballast / str(number)).touch()
        assert os.statvfs(self.path).f_favail == but

    def free(self) -> None:
        """Take away what `fill` and `fill_names` put there."""
        if self._ballast.is_dir():
            shutil.rmtree(self._ballast)
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(mounted: Path, options: str) -> Iterator[Disk]:
    """Mount a tmpfs on the directory `mounted`, which nobody outside sees there.

    Skips, or fails in CI, where the machine does not let us mount.
    """
    for tool in ("unshare", "nsenter", "mount"):
        need(sys.platform == "linux" and shutil.which(tool), f"{tool}, of Linux' util-linux")
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", "--mount", *user, "sh", "-c", _HOLD, "hold", options, str(mounted)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        if holder.stdout.readline() != "mounted\n":
            _, why = holder.communicate()
            need(found=False, what=f"the right to mount a tmpfs in a namespace ({why.strip()})")
        try:
            yield Disk(holder.pid, mounted)
        finally:
            holder.stdin.close()
            holder.wait()
