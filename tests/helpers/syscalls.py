"""Running a function in a child process and counting its calls that change files; one may be refused, or the last.

Linux on x86-64 only: ptrace stops the child at the calls that a seccomp filter names, also those within C libraries.
"""

import ctypes
import os
import platform
import signal
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CHANGES = {
    "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "copy_file_range": 326, "sendfile": 40, "ftruncate": 77,
    "fallocate": 285, "fsync": 74, "fdatasync": 75, "open": 2, "openat": 257, "creat": 85, "rename": 82,
    "renameat": 264, "renameat2": 316, "mkdir": 83, "mkdirat": 258, "rmdir": 84, "link": 86, "linkat": 265,
    "symlink": 88, "symlinkat": 266, "unlink": 87, "unlinkat": 263, "truncate": 76,
}  # fmt: skip
READS = {
    "read": 0,
    "pread64": 17,
    "openat": 257,
    "open": 2,
    "fstat": 5,
    "stat": 4,
    "newfstatat": 262,
    "getdents64": 217,
}
_BY_FD = {"read", "pread64", "write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate", "fsync", "fdatasync"}
_BY_FD |= {"fstat", "getdents64"}
# Calls whose new name is another argument than the first.
_NEW_NAME = {"rename": 1, "link": 1, "symlink": 1}
_TRACEME, _CONT, _POKEUSER, _SETOPTIONS, _SYSCALL_INFO = 0, 7, 6, 0x4200, 0x420E
_OPTIONS = 0x8 | 0x80 | 0x100000  # TRACECLONE, TRACESECCOMP, EXITKILL
_SECCOMP_STOP = signal.SIGTRAP | (7 << 8)
_ORIG_RAX, _RAX = 15 * 8, 10 * 8
_WALL = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


@dataclass
class Trace:
    """How the child ended (exit code, or minus the signal), the calls it made, and what it wrote to stderr.

    calls: (name, path) of each call below the watched directory. unsynced: at each rename to a lasting name, the target
    and the paths below that had not been fsynced. left_unsynced: paths that had not been fsynced in the end.
    """

    code: int = 0
    calls: list[tuple[str, str]] = field(default_factory=list)
    unsynced: list[tuple[str, list[str]]] = field(default_factory=list)
    left_unsynced: list[str] = field(default_factory=list)
    stderr: str = ""


def can_trace() -> bool:
    """Return whether `traced` works on this machine."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    with tempfile.TemporaryDirectory() as directory:
        trace = traced(lambda: os.mkdir(directory + "/made") or 0, Path(directory))
    return trace.code == 0 and trace.calls == [("mkdir", directory + "/made")]


def traced(
    run: Callable[[], int],
    below: Path,
    at: int = 0,
    error: int = 0,
    names: dict[str, int] = CHANGES,
) -> Trace:
    """Run `run` in a fork, which exits with its result; record its calls `names` on paths below `below`.

    at: before this call (counted from 1) the child is killed, or, with `error`, the call fails with that errno.
    """
    trace = Trace()
    dirty: dict[str, None] = {}
    numbers = {number: name for name, number in names.items()}
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            _child(run, sorted(numbers), output.fileno())
        os.waitpid(pid, _WALL)
        _ptrace(_SETOPTIONS, pid, 0, _OPTIONS)
        _ptrace(_CONT, pid, 0, 0)
        while True:
            thread, status = os.waitpid(-1, _WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                if thread == pid:
                    trace.code = os.waitstatus_to_exitcode(status)
                    break
                continue
            if status >> 8 == _SECCOMP_STOP:
                name, path, target = _call(thread, numbers)
                if path.startswith(str(below)) and (names is not CHANGES or _changes(thread, name)):
                    trace.calls.append((name, path))
                    if len(trace.calls) == at and not error:
                        os.kill(pid, signal.SIGKILL)
                        continue
                    if len(trace.calls) == at:
                        _refuse(thread, error)
                    elif names is CHANGES:
                        _follow(name, path, target, dirty, trace)
            stopped_by = os.WSTOPSIG(status) if status >> 16 == 0 else 0
            passed = 0 if stopped_by in (signal.SIGTRAP, signal.SIGSTOP) else stopped_by
            _ptrace(_CONT, thread, 0, passed, gone_is_fine=True)
        output.seek(0)
        trace.stderr = output.read().decode(errors="replace")
    trace.left_unsynced = [path for path in dirty if os.path.lexists(path)]
    return trace


def _child(run: Callable[[], int], numbers: list[int], output: int) -> None:
    os.dup2(output, 2)
    if _libc.ptrace(_TRACEME, 0, None, None) != 0:
        os._exit(99)
    os.kill(os.getpid(), signal.SIGSTOP)
    if not _filter(numbers):
        os._exit(98)
    try:
        code = run()
    finally:
        sys.stderr.flush()
    os._exit(code)


def _filter(numbers: list[int]) -> bool:
    """Let the kernel stop this process at these calls only."""
    load, jump_equal, result = 0x20, 0x15, 0x06
    code = struct.pack("<HBBI", load, 0, 0, 0)
    for i, number in enumerate(numbers):
        code += struct.pack("<HBBI", jump_equal, len(numbers) - i, 0, number)
    code += struct.pack("<HBBI", result, 0, 0, 0x7FFF0000) + struct.pack("<HBBI", result, 0, 0, 0x7FF00000)
    filter_code = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(filter_code)), 16)
    no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    if _libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        return False
    return bool(_libc.prctl(set_seccomp, mode_filter, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0)


def _call(thread: int, numbers: dict[int, str]) -> tuple[str, str, str]:
    """Return the call's name, the path it is about, and for a rename its target."""
    number, arguments = _arguments(thread)
    name = numbers[number]
    if name in _BY_FD:
        return name, _fd_path(thread, arguments[0]), ""
    if name in ("copy_file_range", "sendfile"):
        return name, _fd_path(thread, arguments[2 if name == "copy_file_range" else 0]), ""
    if name in ("renameat", "renameat2", "linkat"):
        return name, _path(thread, arguments[0], arguments[1]), _path(thread, arguments[2], arguments[3])
    if name.endswith("at"):
        return name, _path(thread, arguments[0], arguments[1]), ""
    target = _path(thread, -100, arguments[1]) if name in _NEW_NAME else ""
    return name, _path(thread, -100, arguments[0]), target


def _arguments(thread: int) -> tuple[int, tuple[int, ...]]:
    info = ctypes.create_string_buffer(96)
    _ptrace(_SYSCALL_INFO, thread, 96, ctypes.addressof(info))
    number, *arguments = struct.unpack_from("<7Q", info, 24)
    return number, tuple(arguments)


def _changes(thread: int, name: str) -> bool:
    """Return whether an open counts as a change: it may create or write."""
    if name not in ("open", "openat"):
        return True
    flags = _arguments(thread)[1][1 if name == "open" else 2]
    return bool(flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR | os.O_TRUNC))


def _follow(name: str, path: str, target: str, dirty: dict[str, None], trace: Trace) -> None:
    """Record what a loss of power would lose: files since written, directories since changed."""
    if name in ("fsync", "fdatasync"):
        dirty.pop(path, None)
        return
    if name.startswith("rename"):
        moved_paths = [moved_path for moved_path in dirty if moved_path == path or moved_path.startswith(path + "/")]
        if "/.tmp-" not in target:
            trace.unsynced.append((target, moved_paths))
        for moved_path in [*moved_paths, target]:
            dirty.pop(moved_path, None)
        dirty.update({target + moved_path[len(path) :]: None for moved_path in moved_paths})
        dirty[os.path.dirname(path)] = None
    if name in _BY_FD or name in ("copy_file_range", "sendfile", "truncate"):
        dirty[path] = None
    elif name in ("open", "openat", "creat"):
        if not os.path.exists(path):
            dirty[path] = None
            dirty[os.path.dirname(path)] = None
    else:
        if name in ("mkdir", "mkdirat"):
            dirty[path] = None
        dirty[os.path.dirname(target or path)] = None


def _fd_path(thread: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{thread}/fd/{fd}")
    except OSError:
        return ""


def _path(thread: int, directory: int, address: int) -> str:
    """Return the path that a name at `address` stands for; relative to an open directory where it is one."""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        text = memory.read(256)
        while b"\0" not in text and (further := memory.read(256)):
            text += further
    name = os.fsdecode(text.split(b"\0")[0])
    directory_fd = ctypes.c_int(directory & 0xFFFFFFFF).value
    start = os.readlink(f"/proc/{thread}/cwd") if directory_fd == -100 else _fd_path(thread, directory_fd)
    return os.path.normpath(os.path.join(start, name))


def _refuse(thread: int, error: int) -> None:
    _ptrace(_POKEUSER, thread, _ORIG_RAX, ctypes.c_ulong(-1 & (1 << 64) - 1).value)
    _ptrace(_POKEUSER, thread, _RAX, ctypes.c_ulong(-error & (1 << 64) - 1).value)


def _ptrace(request: int, pid: int, address: int, data: int, gone_is_fine: bool = False) -> None:
    ctypes.set_errno(0)
    if _libc.ptrace(request, pid, address, data) < 0 and ctypes.get_errno():
        error = ctypes.get_errno()
        if not (gone_is_fine and error == 3):
            raise OSError(error, f"ptrace request {request:#x}: {os.strerror(error)}")
