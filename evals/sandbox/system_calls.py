"""A filter of system calls (seccomp), as a classic BPF program that child.py gives to the kernel.

What a program has no use for is refused: new namespaces, mounts, keyrings, io_uring, tracing and reading other
processes, memory that no limit counts, all sockets but local ones, the machine's clock, modules and devices. Numbers
that are newer than this list do not exist for the program. Of libraries, libseccomp would need a system package.
"""

import errno
import struct

_X86_64, _AARCH64 = 0xC000003E, 0xC00000B7  # AUDIT_ARCH of the calls of 64-bit programs; x32 has numbers above 2**30
MACHINES = ("x86_64", "aarch64")
_LAST = 462  # mseal, of Linux 6.10
_NEW_NAMESPACE = 0x7E02_0000  # CLONE_NEW*: mounts, cgroup, names, IPC, users, processes, network
_AF_UNIX = 1
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: write into a terminal as if typed
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _JUMP, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x05, 0x06
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data; low halves of arguments
ALLOW, KILL, _ERROR = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
REFUSED = _ERROR | errno.EPERM
UNKNOWN = _ERROR | errno.ENOSYS
NO_FAMILY = _ERROR | errno.EAFNOSUPPORT

CLONE, CLONE3, SOCKET, IOCTL = (56, 220), (435, 435), (41, 198), (16, 29)
DENIED: dict[str, tuple[int, int | None]] = {  # numbers on x86_64 and aarch64
    "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457), "listmount": (458, 458),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "pidfd_getfd": (438, 438),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_setup": (206, 0), "io_submit": (209, 2), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194),
    "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "move_pages": (279, 239), "migrate_pages": (256, 238), "mbind": (237, 235), "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450), "remap_file_pages": (216, 234), "vmsplice": (278, 75),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "create_module": (174, None), "query_module": (178, None), "reboot": (169, 142),
    "get_kernel_syms": (177, None), "swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "acct": (163, 89), "syslog": (103, 116), "nfsservctl": (180, 42), "_sysctl": (156, None),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    "lookup_dcookie": (212, 18), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
    "personality": (135, 92), "uselib": (134, None), "ustat": (136, None), "sysfs": (139, None),
}  # fmt: skip


def filter_program() -> bytes:
    """Return the instructions (struct sock_filter) for both architectures; another one's call ends the program."""
    code = [_step(_LOAD, _ARCHITECTURE)]
    for place, architecture in enumerate((_X86_64, _AARCH64)):
        calls = _calls_of(place)
        code += [_step(_EQUAL, architecture, 1, 0), _step(_JUMP, len(calls)), *calls]
    return b"".join([*code, _step(_RETURN, KILL)])


def _calls_of(place: int) -> list[bytes]:
    code = [_step(_LOAD, _NUMBER), *_answer_if(_GREATER, _LAST, UNKNOWN), *_answer_if(_EQUAL, CLONE3[place], UNKNOWN)]
    for numbers in DENIED.values():
        number = numbers[place]
        if number is not None:
            code += _answer_if(_EQUAL, number, REFUSED)
    code += _by_argument(CLONE[place], _FIRST, _answer_if(_ANY_BIT, _NEW_NAMESPACE, REFUSED))
    code += _by_argument(SOCKET[place], _FIRST, [_step(_EQUAL, _AF_UNIX, 1, 0), _step(_RETURN, NO_FAMILY)])
    requests = [step for request in _TERMINAL_INPUT for step in _answer_if(_EQUAL, request, REFUSED)]
    return [*code, *_by_argument(IOCTL[place], _SECOND, requests), _step(_RETURN, ALLOW)]


def _by_argument(number: int, argument: int, check: list[bytes]) -> list[bytes]:
    checked = [_step(_LOAD, argument), *check, _step(_RETURN, ALLOW)]
    return [_step(_EQUAL, number, 0, len(checked)), *checked]


def _answer_if(comparison: int, value: int, answer: int) -> list[bytes]:
    return [_step(comparison, value, 0, 1), _step(_RETURN, answer)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
