"""Programs that a model might write, thrown at the sandbox: what they must not reach, use up, or pretend."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evals.sandbox import runner as module
from evals.sandbox.runner import Limits, Sandbox
from model.errors import MicroStepError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="programs are run on Linux and macOS only"),
]

SHORT = Limits(cpu_seconds=1, wall_seconds=3.0)


def refusal(isolation):
    """Why this machine does not run programs so; empty where it does."""
    try:
        Sandbox(isolation).check()
    except MicroStepError as error:
        return str(error)
    return ""


REFUSED = refusal("full")
full = pytest.mark.skipif(bool(REFUSED), reason=REFUSED)


@pytest.fixture(params=["full", "limits"])
def sandbox(request):
    """Both kinds; the walls are tested of the full one alone."""
    if reason := REFUSED if request.param == "full" else refusal("limits"):
        pytest.skip(reason)
    return Sandbox(request.param, SHORT)


def test_a_program_that_reaches_its_end_passes(sandbox):
    found = sandbox.run("import math, collections, re, heapq\ndef f(x):\n    return x + 1\nassert f(1) == 2\n")
    assert (found.outcome, found.reason) == ("passed", "")
    found = sandbox.run("def f(x):\n    return x + 1\n", "assert f(1) == 2\n")
    assert (found.outcome, found.reason) == ("passed", "")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2, 'wrong'", "AssertionError: wrong"),
        ("def f(:", "SyntaxError"),
        ("import sys\nsys.exit(0)", "left the interpreter"),
        ("raise SystemExit", "left the interpreter"),
        ("exit()", "NameError"),  # a convenience of interactive sessions
        ("import os\nos._exit(0)", "ended the interpreter (code 0)"),
        ("import os\nprint('passed', flush=True)\nos._exit(0)", "ended the interpreter"),
        ("import ctypes\nctypes.string_at(0)", "signal 11"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "signal 15"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "signal 9 (SIGKILL): it killed itself"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)", "signal 24"),
        ("raise BaseException('\\ud800')", "BaseException"),
        ("import numpy", "ModuleNotFoundError"),  # the standard library alone
    ],
)
def test_what_does_not_reach_its_end_fails(sandbox, program, reason):
    found = sandbox.run(program)
    assert found.outcome == "failed"  # a program that killed itself was told as out of time
    assert reason in found.reason


CHEATS = {
    "a pass in all that is open": (
        "import os\n"
        "for number in range(64):\n"
        '    for said in (b\' passed\', b\'{"passed": true, "gone": false, "reason": ""}\\n\'):\n'
        "        try:\n            os.write(number, said)\n        except OSError:\n            pass\n"
        "os._exit(0)\n"
    ),
    "what the frames below hold": (
        "import os, sys\n"
        "frame = sys._getframe()\n"
        "while frame:\n"
        "    for value in list(frame.f_locals.values()):\n"
        "        for number in range(64):\n"
        "            try:\n                os.write(number, f'{value} passed'.encode())\n"
        "            except OSError:\n                pass\n"
        "    frame = frame.f_back\n"
        "os._exit(0)\n"
    ),
    "a value that equals all": (
        "class Same(int):\n    __eq__ = lambda *_: True\n    __hash__ = int.__hash__\ndef f(x):\n    return Same(5)\n"
    ),
    "an object that equals all": "class Same:\n    __eq__ = lambda *_: True\ndef f(x):\n    return Same()\n",
    "what is built in": (
        "import builtins\nfor name in ('abs', 'all', 'len'):\n"
        "    globals()[name] = lambda *_: True\n    setattr(builtins, name, lambda *_: True)\n"
        "def f(x):\n    return 3\n"
    ),
    "the end of the tests": "import os\ndef f(x):\n    os.kill(-1, 9)\n    return 5\n",
    "the end of the program": "import os\ndef f(x):\n    os._exit(0)\n",
    "an answer that is none": (
        "import os\ndef f(x):\n    for number in range(64):\n"
        '        try:\n            os.write(number, b\'{"value": {"int": []}}\\n\')\n'
        "        except OSError:\n            pass\n    return 5\n"
    ),
    "the tests, as text in memory": (
        "import gc, sys\n"
        "def f(x):\n"
        "    held = [str(each) for each in gc.get_objects() if isinstance(each, (str, dict, list, tuple))]\n"
        "    return 2 if any(''.join(['q7', 'marked']) in each for each in held) else 5\n"
    ),
}


@pytest.mark.parametrize("how", CHEATS)
def test_a_pass_cannot_be_faked(sandbox, how):
    """A program could read the secret that stood for a pass, and its objects took part in the comparisons."""
    tests = (
        "assert abs(f(1) - 2) < 1 and f(1) == 2, 'q7marked'\n"
        if "built in" in how
        else "assert f(1) == 2, 'q7marked'\n"
    )
    assert not sandbox.run(CHEATS[how], tests).passed


@full
def test_values_cross_as_they_are():
    values = (
        "[None, True, 7, 10**5000, 0.1, float('inf'), 1j, '\\ud800', b'x', bytearray(b'y'), (1, [2]), {3},"
        " frozenset({4}), {(5, 'k'): {6: [7]}}, range(2, 9, 3), int]"
    )
    program = (
        "import collections, math\n"
        f"def given():\n    return {values}\n"
        "def same(x):\n    return x\n"
        "def counted():\n    return collections.Counter('aab')\n"
        "def items():\n    yield from (1, 2)\n"
        "def sum(a, b):\n    return a + b\n"
        "class Pair:\n    def __init__(self, a):\n        self.a = a\n"
        "def second(pairs):\n    return pairs[1].a\n"
        "def wrong():\n    return {}['k']\n"
    )
    tests = (
        f"assert given() == {values} and same({values}) == {values}\n"
        "assert [type(each) for each in given()] == [type(each) for each in same(given())]\n"
        "assert counted() == {'a': 2, 'b': 1} and list(items()) == [1, 2] and next(items()) == 1\n"
        "assert sum(10, 15) == 25 and max(1, 2) == 2 and math.floor(2.5) == 2\n"
        "pair = Pair(1)\npair.a = 6\nassert second([Pair(3), pair]) == 6 and pair.a == 6 and len(same('abc')) == 3\n"
        "try:\n    wrong()\nexcept KeyError as error:\n    assert 'k' in str(error)\nelse:\n    assert False\n"
    )
    found = Sandbox().run(program, tests, "sum")
    assert found.passed, found.reason


def test_processor_time_is_limited(sandbox):
    begun = time.monotonic()
    assert sandbox.run("while True:\n    pass").outcome == "timed out"
    assert time.monotonic() - begun < 3 + 10


def test_time_is_limited():
    sandbox = Sandbox("limits" if REFUSED else "full", Limits(wall_seconds=0.5))
    found = sandbox.run("import time\ntime.sleep(60)")
    assert (found.outcome, found.reason) == ("timed out", "it ran too long")


def test_a_program_that_stops_everything_it_can_is_ended(sandbox):
    found = sandbox.run(
        "import os, signal\n"
        "for number in range(1, 65):\n"
        "    try:\n"
        "        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n"
        "        pass\n"
        "while True:\n"
        "    pass\n"
    )
    assert found.outcome == "timed out"


@pytest.mark.parametrize("program", ["x = bytearray(10**10)", "x = []\nwhile True:\n    x.append('a' * 10**7)"])
def test_memory_is_limited(sandbox, program):
    assert sandbox.run(program).reason == "MemoryError"


HELD = (
    "import mmap, os, time\n"
    "def fill(memory):\n"
    "    for i in range(0, len(memory), 4096):\n        memory[i] = 1\n"
    "def fork(work):\n"
    "    if os.fork() == 0:\n        work()\n        time.sleep(.4)\n        os._exit(0)\n"
)


@full
def test_memory_of_all_processes_together_is_limited():
    """Four processes of 100 MiB each passed, and so did 1 GiB of System V memory."""
    limits = Limits(memory_bytes=160 * 2**20)
    apart = HELD + "for _ in range(4):\n    fork(lambda: fill(bytearray(60 * 2**20)))\ntime.sleep(.6)\n"
    apart = apart.replace(
        "lambda: fill(bytearray(60 * 2**20))", "lambda: globals().update(m=bytearray(b'x') * (60 * 2**20))"
    )
    assert "together" in Sandbox(limits=limits).run(apart).reason
    shared = (
        HELD + "m = mmap.mmap(-1, 60 * 2**20)\nfill(m)\nfor _ in range(4):\n    fork(lambda: fill(m))\ntime.sleep(.6)\n"
    )
    found = Sandbox(limits=limits).run(shared)  # each of its pages counts once
    assert found.passed, found.reason


def test_files_are_limited(sandbox):
    assert "File too large" in sandbox.run("open('f', 'wb').write(b'a' * 10**8)").reason


@full
def test_all_files_together_are_limited():
    program = "for i in range(100):\n    open(f'f{i}', 'wb').write(b'a' * 10**6)\n"
    assert "No space left" in Sandbox().run(program).reason


@pytest.fixture
def own_jail(tmp_path, monkeypatch):
    """A script that no other test runs, so that its processes can be told from theirs."""
    script = tmp_path / "jail.py"
    script.write_bytes(module._CHILD.read_bytes())
    monkeypatch.setattr(module, "_CHILD", script)
    return script


@full
def test_processes_are_limited_and_none_stays(own_jail):
    """A bomb of 40 forks: a handful start, the next is refused, and all are gone at the end."""
    found = Sandbox(limits=Limits(processes=6)).run(
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    for _ in range(40):\n"
        "        if os.fork() == 0:\n"
        "            os.setsid()\n"
        "            time.sleep(60)\n"
        "            os._exit(0)\n"
        "        made += 1\n"
        "except BlockingIOError:\n"
        "    assert 1 <= made <= 6, made\n"
        "else:\n"
        "    raise AssertionError('no limit')\n"
    )
    assert found.passed, found.reason
    assert not _sandboxed(own_jail)


@full
def test_a_fork_bomb_is_ended(own_jail):
    program = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    found = Sandbox(limits=Limits(cpu_seconds=1, wall_seconds=1.0, processes=6)).run(program)
    assert found.outcome == "timed out"
    assert not _sandboxed(own_jail)


def _sandboxed(script):
    """Processes of a sandbox that are still there; they are killed at once, and gone a moment later."""
    for _ in range(50):
        if not (left := _alive(script)):
            return []
        time.sleep(0.05)
    return left


def _alive(script):
    """Processes that run a script, in whatever namespace."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(script).encode() in words:
            found.append(int(process.name))
    return found


@full
def test_the_network_is_out_of_reach():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        for program in (
            f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)",
            "import socket\nsocket.create_connection(('1.1.1.1', 53), timeout=1)",
            "import urllib.request\nurllib.request.urlopen('http://example.com', timeout=1)",
        ):
            assert "Error" in Sandbox().run(program).reason
        with pytest.raises(TimeoutError):
            server.accept()
    named = (  # SIOCGIFNAME: the second interface does not exist
        "import fcntl, socket, struct\n"
        "def name(number):\n"
        "    return fcntl.ioctl(socket.socket(socket.AF_UNIX), 0x8910, struct.pack('16si20x', b'', number))[:2]\n"
    )
    found = Sandbox().run(
        named, "assert name(1) == b'lo'\ntry:\n    name(2)\n    assert False\nexcept OSError:\n    pass\n"
    )
    assert found.passed, found.reason


@full
def test_files_outside_cannot_be_seen_changed_or_deleted(tmp_path):
    tmp_path.chmod(0o777)
    precious = tmp_path / "precious"
    precious.write_text("mine")
    precious.chmod(0o666)
    for program in (
        f"import os\nos.remove({str(precious)!r})",
        f"open({str(precious)!r})",
        f"open({str(precious)!r}, 'w').write('theirs')",
        "import os\nos.listdir(os.path.expanduser('~root'))[0]",
        "import shutil\nshutil.rmtree('/usr')",
        "import shutil, sys\nshutil.rmtree(sys.base_prefix)",
        "open('/usr/mine', 'w')",
        "open('/mine', 'w')",
        "open('/proc/1/environ').read()",
    ):
        found = Sandbox().run(program)
        assert not found.passed, program
    assert precious.read_text() == "mine"
    assert sys.executable and Path(os.__file__).exists()


@full
def test_a_way_out_through_the_system_is_closed():
    for program in (
        "import os\nos.setuid(0)",
        "import os\nos.chroot('/')",
        "import ctypes\nassert ctypes.CDLL(None).mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None) == 0",
        "import ctypes\nassert ctypes.CDLL(None).umount2(b'/', 2) == 0",
        "import os, signal\nos.kill(1, signal.SIGKILL)\nimport time\ntime.sleep(.2)\nassert False, 'alive'",
    ):
        assert not Sandbox().run(program).passed, program
    assert Sandbox().run("import resource\nassert resource.getrlimit(resource.RLIMIT_NPROC)[1] == 8").passed
    assert not Sandbox().run("import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999))").passed


def test_nothing_is_inherited(sandbox, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        program = (
            "import os\n"
            "assert set(os.environ) <= {'LC_CTYPE', '__CF_USER_TEXT_ENCODING'}, os.environ\n"
            "assert os.listdir('.') == []\n"
            "assert os.read(0, 1) == b''\n"
            "import stat\n"
            "kinds = []\n"
            "for number in range(3, 64):\n"
            "    try:\n"
            "        kinds.append(stat.S_ISFIFO(os.fstat(number).st_mode))\n"
            "    except OSError:\n"
            "        continue\n"
            "assert kinds == [True, True], kinds\n"  # from its tests, and to them
        )
        found = sandbox.run(program)
    assert found.passed, found.reason


def test_the_working_folder_is_new_each_time(sandbox):
    program = "import os\nassert not os.path.exists('f')\nopen('f', 'w').write('x')\nassert os.path.exists('f')"
    assert sandbox.run(program).passed
    assert sandbox.run(program).passed


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only of root")
def test_root_gives_up_being_root(sandbox):
    assert sandbox.run("import os\nassert os.getuid() > 1000 and os.getgid() > 1000 and not os.getgroups()").passed


def test_a_machine_that_cannot_shut_programs_off_refuses(monkeypatch):
    monkeypatch.setattr(
        module, "_answer", lambda *_: b'{"verdict": "no sandbox", "reason": "Operation not permitted (unshare)"}'
    )
    with pytest.raises(MicroStepError, match="cannot isolate a program.*unshare.*--weak-sandbox"):
        Sandbox().run("pass")


def test_both_sides_have_one_word_for_it():
    from evals.sandbox import child

    assert child.NO_SANDBOX == module.NO_SANDBOX


def test_a_jail_that_dies_is_no_pass(monkeypatch):
    for answer in (None, b"", b'"passed"x'):
        monkeypatch.setattr(module, "_answer", lambda *_, answer=answer: answer)
        assert not Sandbox().run("pass").passed


@full
def test_a_killed_parent_leaves_no_program_and_no_folder(own_jail, tmp_path, monkeypatch):
    """Each process dies with the one that started it; its folder goes when the next program runs."""
    code = (
        "import pathlib, evals.sandbox.runner as module\n"
        f"module._CHILD = pathlib.Path({str(own_jail)!r})\n"
        "module.Sandbox(limits=module.Limits(wall_seconds=60)).run('import time; time.sleep(60)')\n"
    )
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    rooms.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(module.__file__).parents[2], env={**os.environ, "TMPDIR": str(rooms)}
    )
    for _ in range(600):
        if len(_alive(own_jail)) == 4:  # outside, watcher, program, its tests
            break
        time.sleep(0.05)
    else:
        pytest.fail("the program did not start")
    monkeypatch.setattr("tempfile.tempdir", str(rooms))
    assert Sandbox().run("pass").passed
    (room,) = rooms.iterdir()  # in use: it stays
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not _sandboxed(own_jail)
    assert room.exists()
    assert Sandbox().run("pass").passed
    assert not list(rooms.iterdir())
