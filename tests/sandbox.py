"""A sandbox in which the system refuses one call, by seccomp(2); imports nothing of ours."""

from __future__ import annotations

import ctypes
import platform

NUMBERS = {"x86_64": 318, "aarch64": 278}
"""That of getrandom(2) on each machine."""
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


class Instruction(ctypes.Structure):
    """`struct sock_filter`."""

    _fields_ = [
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    ]


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction))]


def refuse_getrandom(number: int) -> None:
    """Have getrandom(2) fail with this errno in this process from now on, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = (Instruction * 4)(
        Instruction(0x20, 0, 0, 0),  # load the call's number
        Instruction(0x15, 0, 1, NUMBERS[platform.machine()]),
        Instruction(0x06, 0, 0, ERRNO | number),
        Instruction(0x06, 0, 0, ALLOW),
    )
    program = Program(len(code), code)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0  # PR_SET_SECCOMP
