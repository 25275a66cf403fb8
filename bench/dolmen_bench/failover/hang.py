"""Single threads of a process that hang, while its other threads go on: held by ptrace, which SIGSTOP cannot do."""

import ctypes
import os

from ..trouble import Trouble

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
# A thread that is no child of ours is waited for as one (__WALL).
ANY_CHILD = 0x40000000


def threads(wanted):
    """Holds the thread of that name of each process (none: its first thread). Returns what lets them go."""
    held = [_thread(pid, name) for pid, name in wanted]
    if not held:
        raise Trouble("there is no thread to hold")
    for thread in held:
        _ptrace(SEIZE, thread)
        _ptrace(INTERRUPT, thread)
        os.waitpid(thread, ANY_CHILD)

    def let_go():
        for thread in held:
            _ptrace(DETACH, thread)
    return let_go


def _thread(pid, name):
    if name is None:
        return pid
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8") as file:
            if file.read().strip() == name:
                return int(thread)
    raise Trouble(f"process {pid} has no thread {name}")


def _ptrace(request, thread):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype, libc.ptrace.argtypes = ctypes.c_long, [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, thread, None, None) == -1:
        raise Trouble(f"ptrace {request:#x} of thread {thread}: {os.strerror(ctypes.get_errno())}")
