"""Which file systems the local backend's promises hold on."""

from __future__ import annotations

import os

from sentra_kms.errors import ConfigurationError

# On these, rename, fsync and locks of one machine are not seen, or not in order, by another.
_NETWORK = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.ceph", "fuse.davfs",
        "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
        "gfs2", "glusterfs", "gpfs", "lustre",
        "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs",
        "vboxsf", "virtiofs",
    }
)  # fmt: skip
_MOUNTS = "/proc/self/mountinfo"


def refuse_network_file_system(path: str, folder: int) -> None:
    """Raise `ConfigurationError` if the open directory `folder` is on a network file system.

    Known on Linux only; elsewhere nothing is checked.
    """
    kind = _kind_of(os.fstat(folder).st_dev, _MOUNTS)
    if kind in _NETWORK:
        raise ConfigurationError(
            f"the key directory {path} is on a network file system ({kind}), where a ring saved on "
            "two machines could be lost: use a disk of this machine, or another store"
        )


def _kind_of(device: int, mounts: str) -> str | None:
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(mounts, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                mount, _, source = line.partition(" - ")
                if mount.split(" ", 3)[2] == wanted:
                    return source.split(" ", 1)[0]
    except FileNotFoundError:
        return None
    return None
