"""Run one generated program in an isolated process: a script that runner.py starts with a bare interpreter.

The script reads a request (JSON) from standard input and writes a verdict (JSON) to standard output. First it isolates
itself: its own namespaces for processes, mounts, network, IPC and names, and a root that holds only the interpreter and
the system's libraries, read-only, and one small empty folder. Then a first process watches a second one, which drops
all privileges, sets its limits, and runs the program. Only the standard library is used; nothing else is available.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

_NEW_NS, _NEW_UTS, _NEW_IPC, _NEW_USER = 0x20000, 0x4000000, 0x8000000, 0x10000000
_NEW_PID, _NEW_NET = 0x20000000, 0x40000000
_NO_SUID, _NO_DEV, _BIND, _RECURSIVE, _PRIVATE, _DETACH = 2, 4, 4096, 16384, 1 << 18, 2
_AT_CWD, _AT_RECURSIVE, _MOUNT_SETATTR = -100, 0x8000, 442
_READ_ONLY, _ATTR_NO_SUID, _ATTR_NO_DEV = 1, 2, 4
_DEATH_SIGNAL, _DUMPABLE, _DROP_BOUND, _NO_NEW_PRIVILEGES = 1, 4, 24, 38
_CAPABILITIES, _CAPABILITY_VERSION = 64, 0x20080522
_SEEN = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/nix/store", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")
_VERDICT_BYTES = 4096
_COUNTS_BY_NAMESPACE = (5, 14)  # Linux
_CLOCK_SECONDS = 0.25  # tolerance between the kernel's limit and its report of CPU time
NO_SANDBOX = "no sandbox"


def main() -> None:
    request = json.loads(sys.stdin.buffer.read())
    uid = None
    request["processes"] += _other_processes(request["isolated"])
    if request["isolated"]:
        try:
            uid = _isolate(request["room"])
        except OSError as error:
            return _reply(NO_SANDBOX, f"{error.strerror} ({error.filename})")
    elif os.geteuid() == 0:
        uid = _private_uid()
        os.chown(request["room"], uid, uid)
    if not request["isolated"]:
        os.chdir(request["room"])
    _die_with(request["parent"])  # only here, since a change of user resets it
    outer = os.getpid()
    watcher = os.fork()
    if watcher == 0:
        _die_with(0 if request["isolated"] else outer)  # in its own namespace a process sees no parent
        _watch(request, uid)
        os._exit(0)
    os.waitpid(watcher, 0)


def _other_processes(isolated: bool) -> int:
    """Count other processes under the program's limit: the user's, unless a namespace counts its own."""
    kernel = tuple(int(part) for part in os.uname().release.split(".")[:2] if part.isdigit())
    if os.geteuid() == 0 or (isolated and kernel >= _COUNTS_BY_NAMESPACE):
        return 0
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            count += process.stat().st_uid == os.getuid()
    return count


def _reply(verdict: str, reason: str) -> None:
    os.write(1, json.dumps({"verdict": verdict, "reason": reason}).encode())


# --- namespaces


def _libc(name: str, *arguments: object) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)


def _isolate(room: str) -> int | None:
    """Enter new namespaces and a new root; return the uid that the program must change to, or None."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "only Linux supports this", "namespaces")
    spaces = _NEW_NS | _NEW_PID | _NEW_NET | _NEW_IPC | _NEW_UTS
    uid = None
    if os.geteuid() == 0:
        uid = _private_uid()
        try:
            _libc("unshare", spaces)
        except PermissionError:  # root without its powers, as in most containers: continue as an ordinary user
            os.chown(room, uid, uid)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            _libc("prctl", _DUMPABLE, 1, 0, 0, 0)  # else /proc/self stays root's
            uid = None
    if os.geteuid() != 0:
        own, group = os.getuid(), os.getgid()
        _libc("unshare", spaces | _NEW_USER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{own} {own} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _new_root(room.encode())
    return uid


def _private_uid() -> int:
    """Return an unused uid that this machine or container knows, since process limits count by uid."""
    start, _, count = map(int, Path("/proc/self/uid_map").read_text().splitlines()[-1].split())
    return min(start + count - 2, 2_000_000_000) - os.getpid() % 1000


def _new_root(room: bytes) -> None:
    _libc("mount", None, b"/", None, _RECURSIVE | _PRIVATE, None)
    _libc("mount", b"tmpfs", room, b"tmpfs", _NO_SUID | _NO_DEV, b"size=1m,mode=755")
    own = (sys.base_prefix, sys.base_exec_prefix, str(Path(os.__file__).parent))
    shown: list[Path] = []
    for path in map(Path, (*_SEEN, *own)):
        if any(path.is_relative_to(each) for each in shown):
            continue
        target = Path(os.fsdecode(room) + str(path))
        if path.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.readlink())
        elif path.exists():
            (target if path.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                target.touch()
            _libc("mount", os.fsencode(path), os.fsencode(target), None, _BIND | _RECURSIVE, None)
            _set(os.fsencode(target), _READ_ONLY | _ATTR_NO_SUID | (0 if "/dev" in str(path) else _ATTR_NO_DEV))
            shown.append(path)
    work = room + b"/tmp"
    Path(os.fsdecode(work)).mkdir()
    _libc("mount", b"tmpfs", work, b"tmpfs", _NO_SUID | _NO_DEV, b"size=16m,mode=1777,nr_inodes=1000")
    _set(room, _READ_ONLY, recursive=False)
    os.chdir(room)
    _libc("pivot_root", b".", b".")
    _libc("umount2", b".", _DETACH)
    os.chdir("/tmp")


def _set(path: bytes, attributes: int, recursive: bool = True) -> None:
    """Call mount_setattr, which few C libraries export by name."""
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    _libc("syscall", _MOUNT_SETATTR, _AT_CWD, path, flags, ctypes.byref(wanted), ctypes.sizeof(wanted))


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        _libc("prctl", _DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent has died already
        os._exit(1)


# --- the process that watches


def _watch(request: dict, uid: int | None) -> None:  # type: ignore[type-arg]
    """Run the program, wait for it, kill its leftovers, and report the outcome."""
    secret = os.urandom(16).hex()  # only a program that reached its end can send this
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _program(request, uid, writer, secret)
        os._exit(0)
    os.close(writer)
    message, deadline, status = b"", time.monotonic() + request["wall_seconds"], None
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    while status is None and time.monotonic() < deadline:
        if select.select([reader], [], [], 0.01)[0]:
            message += (piece := os.read(reader, _VERDICT_BYTES))
            if not piece:
                time.sleep(0.01)
        found, code, used = os.wait4(child, os.WNOHANG)
        status = code if found else None
    while status is not None and len(message) < _VERDICT_BYTES and select.select([reader], [], [], 0)[0]:
        piece = os.read(reader, _VERDICT_BYTES)
        if not piece:
            break
        message += piece
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    used_up = used.ru_utime + used.ru_stime >= request["cpu_seconds"] - _CLOCK_SECONDS
    _reply(*_judged(message.decode("utf-8", "replace"), secret, status, used_up))


def _judged(said: str, secret: str, status: int | None, used_up: bool) -> tuple[str, str]:
    if status is None:
        return "timed out", "it ran too long"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number in (signal.SIGXCPU, signal.SIGKILL) and used_up:  # a program may send either to itself
            return "timed out", "it used too much CPU time"
        cause = "it killed itself, or the machine ran out of memory" if number == signal.SIGKILL else "its own error"
        return "failed", f"it was killed by signal {number} ({signal.Signals(number).name}): {cause}"
    if said == f"{secret} passed":
        return "passed", ""
    if said.startswith(secret):
        return "failed", said.removeprefix(secret).strip()
    return "failed", f"it ended the interpreter (code {os.WEXITSTATUS(status)})"


# --- the process that runs the program


def _program(request: dict, uid: int | None, writer: int, secret: str) -> None:  # type: ignore[type-arg]
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    out = os.dup2(writer, 3) if writer != 3 else 3
    os.closerange(4, 1024)
    _limit(request)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if sys.platform == "linux":
        _drop_privileges()
    if not os.access(os.__file__, os.R_OK):
        os.write(out, f"{secret} only root can read the interpreter in {sys.base_prefix}".encode())
        os._exit(0)
    try:
        exec(compile(request["program"], "program", "exec", dont_inherit=True), {"__name__": "program"})  # noqa: S102
        outcome = "passed"
    except MemoryError:
        outcome = "MemoryError"
    except SystemExit as error:
        outcome = f"it left the interpreter ({str(error.code)[:40]})"
    except BaseException as error:  # noqa: BLE001  # whatever a program may raise is its failure
        outcome = f"{type(error).__name__}: {str(error)[:200]}"
    os.write(out, f"{secret} {outcome}".encode("utf-8", "replace"))
    os._exit(0)


def _limit(request: dict) -> None:  # type: ignore[type-arg]
    """Set the limits, which no descendant can lift."""
    for limit, value in (
        ("RLIMIT_CPU", request["cpu_seconds"]),
        ("RLIMIT_AS", request["memory_bytes"]),
        ("RLIMIT_NPROC", request["processes"]),
        ("RLIMIT_FSIZE", request["file_bytes"]),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_CORE", 0),
    ):
        resource.setrlimit(getattr(resource, limit), (value, value))


def _drop_privileges() -> None:
    for capability in range(_CAPABILITIES):
        with contextlib.suppress(OSError):  # not supported by this kernel, or not allowed for this process
            _libc("prctl", _DROP_BOUND, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    _libc("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))
    _libc("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)


if __name__ == "__main__":
    main()
