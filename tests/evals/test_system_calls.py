"""The filter of system calls: its instructions, followed one by one, and the calls themselves, made from a program."""

import errno
import os
import struct
import sys

import pytest

from evals.sandbox.runner import Sandbox
from evals.sandbox.system_calls import ALLOW, CLONE, CLONE3, DENIED, KILL, NO_FAMILY, REFUSED, UNKNOWN, filter_program
from model.errors import MicroStepError

X86_64, AARCH64, I386, ARM = 0xC000003E, 0xC00000B7, 0x40000003, 0x40000028
SOCKET, IOCTL = (41, 198), (16, 29)
FLAGS = {"mounts": 0x20000, "cgroup": 0x2000000, "names": 0x4000000, "IPC": 0x8000000, "users": 0x10000000}
FLAGS |= {"processes": 0x20000000, "network": 0x40000000}
HARMLESS = {"read": (0, 63), "write": (1, 64), "mmap": (9, 222), "execve": (59, 221), "futex": (202, 98)}


def answer(architecture, number, first=0, second=0):
    """What the kernel would be told: the machine of classic BPF, as far as the filter uses it."""
    code = list(struct.iter_unpack("=HBBI", filter_program()))
    data = struct.pack("=IIQ6Q", number, architecture, 0, first, second, 0, 0, 0, 0)
    held, at = 0, 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            (held,) = struct.unpack_from("=I", data, value)
        elif operation == 0x05:
            at += value
        elif operation == 0x06:
            return value
        else:
            test = {0x15: held == value, 0x25: held > value, 0x45: bool(held & value)}[operation]
            at += if_true if test else if_false


@pytest.mark.parametrize(("place", "architecture"), [(0, X86_64), (1, AARCH64)])
def test_both_architectures_refuse_the_same_calls(place, architecture):
    for name, numbers in DENIED.items():
        if numbers[place] is not None:
            assert answer(architecture, numbers[place]) == REFUSED, name
    assert answer(architecture, CLONE3[place]) == UNKNOWN
    for flag in FLAGS.values():
        assert answer(architecture, CLONE[place], flag | 17) == REFUSED
    assert answer(architecture, CLONE[place], 0x3D0F00) == ALLOW  # a thread
    assert answer(architecture, CLONE[place], 0x1200011) == ALLOW  # a process
    assert [answer(architecture, SOCKET[place], family) for family in (1, 2, 16)] == [ALLOW, NO_FAMILY, NO_FAMILY]
    assert answer(architecture, IOCTL[place], 0, 0x5412) == REFUSED and answer(architecture, IOCTL[place]) == ALLOW
    for name, numbers in HARMLESS.items():
        assert answer(architecture, numbers[place]) == ALLOW, name
    for number in (463, 1000, 0x4000_0000 | 165):  # newer than the list, and x32's
        assert answer(architecture, number) == UNKNOWN


def test_calls_of_another_architecture_end_the_program():
    assert {answer(architecture, 20) for architecture in (I386, ARM, 0)} == {KILL}


@pytest.fixture(scope="module")
def sandbox():
    if os.name != "posix":
        pytest.skip("programs are run on Linux and macOS only")
    try:
        Sandbox().check()
    except MicroStepError as error:
        pytest.skip(str(error))
    return Sandbox()


MACHINE = os.uname().machine if os.name == "posix" else ""
LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"


@pytest.mark.slow
@pytest.mark.skipif(MACHINE not in ("x86_64", "aarch64"), reason="numbers of two architectures")
def test_each_call_is_refused_to_a_program(sandbox):
    """The filter comes before the kernel looks at arguments, which are all empty."""
    place = ("x86_64", "aarch64").index(MACHINE)
    calls = {name: numbers[place] for name, numbers in DENIED.items() if numbers[place] is not None}
    program = LIBC + (
        "def fails(*arguments):\n"
        "    ctypes.set_errno(0)\n"
        "    return libc.syscall(*arguments) == -1 and ctypes.get_errno()\n"
        "def made(calls):\n"
        "    return {name: fails(number, 0, 0, 0, 0, 0, 0) for name, number in calls.items()}\n"
        f"def cloned(flag):\n    return fails({CLONE[place]}, flag | 17, 0, 0, 0, 0)\n"
        f"def other():\n    return [fails({CLONE3[place]}, 0, 0), fails(463, 0), fails(0x40000000 | 39, 0)]\n"
        f"def socket(family):\n    return fails({SOCKET[place]}, family, 3, 0)\n"
        "def mode():\n    return libc.prctl(21, 0, 0, 0, 0)\n"
    )
    tests = (
        f"assert made({calls!r}) == {dict.fromkeys(calls, errno.EPERM)!r}, made({calls!r})\n"
        f"for flag in {list(FLAGS.values())!r}:\n    assert cloned(flag) == {errno.EPERM}, flag\n"
        f"assert other() == [{errno.ENOSYS}] * 3, other()\n"
        f"for family in (2, 10, 16, 17, 38, 40):\n    assert socket(family) == {errno.EAFNOSUPPORT}, family\n"
        "assert mode() == 2\n"  # a filter is at work
    )
    found = sandbox.run(program, tests)
    assert found.passed, found.reason


@pytest.mark.slow
@pytest.mark.skipif(MACHINE != "x86_64", reason="instructions of x86")
def test_a_call_by_the_way_of_32_bits_ends_the_program(sandbox):
    program = (
        "import ctypes, mmap\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        r"page.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')" + "\n"  # getpid by int 0x80
        "def f():\n"
        "    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()\n"
    )
    found = sandbox.run(program, "assert f() > 0")
    assert not found.passed
    assert "SIGSYS" in found.reason or "SIGSEGV" in found.reason  # the latter where no 32 bits are supported at all


@pytest.mark.slow
def test_ordinary_programs_run(sandbox):
    program = (
        "import asyncio, concurrent.futures, os, socket, subprocess, sys, tempfile, threading, multiprocessing\n"
        "def threads():\n"
        "    with concurrent.futures.ThreadPoolExecutor(3) as pool:\n"
        "        return list(pool.map(abs, [-1, 2, -3]))\n"
        "def process():\n"
        "    return subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True).stdout\n"
        "def forked():\n"
        "    other = multiprocessing.Process(target=os.getpid)\n"
        "    other.start()\n"
        "    other.join()\n"
        "    return other.exitcode\n"
        "async def later():\n"
        "    await asyncio.sleep(0)\n"
        "    return 5\n"
        "def waited():\n"
        "    return asyncio.run(later())\n"
        "def pair():\n"
        "    a, b = socket.socketpair()\n"
        "    a.send(b'x')\n"
        "    return b.recv(1)\n"
        "def file():\n"
        "    with tempfile.NamedTemporaryFile() as new:\n"
        "        new.write(b'y')\n"
        "        new.seek(0)\n"
        "        return new.read()\n"
    )
    tests = (
        "assert threads() == [1, 2, 3]\nassert process() == b'42\\n'\nassert forked() == 0\n"
        "assert waited() == 5\nassert pair() == b'x'\nassert file() == b'y'\n"
    )
    found = sandbox.run(program, tests)
    assert found.passed, found.reason


@pytest.mark.slow
def test_a_kernel_without_filters_is_told(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "mips64")
    with pytest.raises(MicroStepError, match="seccomp.*--weak-sandbox"):
        Sandbox().check()
    weak = Sandbox("limits")
    try:
        lacking = weak.check()
    except MicroStepError as error:
        assert "only root" in str(error), sys.base_prefix
        return
    assert any("seccomp" in sentence for sentence in lacking)
