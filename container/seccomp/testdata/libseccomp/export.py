#!/usr/bin/env python3
"""Writes, for every NAME.json here, what libseccomp makes of it when it is driven as runc drives it: NAME.ARCH.bpf for amd64 and arm64.

Needs libseccomp.so.2 (2.5 or later) on an x86_64 machine. runc puts a piece in front of libseccomp's program that answers ENOSYS; it is not
in these files.
"""
import ctypes
import json
import os
import pathlib
import sys

lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
lib.seccomp_init.restype = ctypes.c_void_p

ARCHS = {  # <seccomp.h>
    "SCMP_ARCH_X86": 0x40000003, "SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_ARM": 0x40000028, "SCMP_ARCH_AARCH64": 0xC00000B7,
}
FAMILY = {
    "amd64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "arm64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}
OPS = {name: i + 1 for i, name in enumerate(
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"])}


class Arg(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def action(name, errno):
    errno = 1 if errno is None else errno
    return {
        "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_TRAP": 0x00030000,
        "SCMP_ACT_ERRNO": 0x00050000 | errno, "SCMP_ACT_NOTIFY": 0x7FC00000, "SCMP_ACT_TRACE": 0x7FF00000 | errno,
        "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
    }[name]


def check(rc, what):
    if rc < 0:
        raise RuntimeError(f"{what}: {os.strerror(-rc)}")


def add(ctx, value, number, args, name):
    array = (Arg * max(1, len(args)))(*[Arg(a["index"], OPS[a["op"]], a.get("value", 0), a.get("valueTwo", 0)) for a in args])
    check(lib.seccomp_rule_add_array(ctypes.c_void_p(ctx), ctypes.c_uint32(value), number, len(args), array), name)


def build(profile, arch, out):
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    ctx = lib.seccomp_init(ctypes.c_uint32(default))
    native = FAMILY[arch][0]
    for name in [native] + profile.get("architectures", []):
        if name in FAMILY[arch] and lib.seccomp_arch_exist(ctypes.c_void_p(ctx), ctypes.c_uint32(ARCHS[name])) != 0:
            check(lib.seccomp_arch_add(ctypes.c_void_p(ctx), ctypes.c_uint32(ARCHS[name])), name)
    if native != "SCMP_ARCH_X86_64":
        check(lib.seccomp_arch_remove(ctypes.c_void_p(ctx), ctypes.c_uint32(ARCHS["SCMP_ARCH_X86_64"])), "remove")
    if len(profile.get("syscalls", [])) > 32:
        lib.seccomp_attr_set(ctypes.c_void_p(ctx), 8, 2)  # SCMP_FLTATR_CTL_OPTIMIZE
    for rule in profile.get("syscalls", []):
        value = action(rule["action"], rule.get("errnoRet"))
        args = rule.get("args") or []
        for name in rule["names"]:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            if value == default or number == -1:
                continue
            if len({a["index"] for a in args}) < len(args):
                for a in args:
                    add(ctx, value, number, [a], name)
            else:
                add(ctx, value, number, args, name)
    with open(out, "wb") as f:
        check(lib.seccomp_export_bpf(ctypes.c_void_p(ctx), f.fileno()), "export")
    lib.seccomp_release(ctypes.c_void_p(ctx))


if __name__ == "__main__":
    here = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__)
    for file in sorted((here if here.is_dir() else here.parent).glob("*.json")):
        for arch in FAMILY:
            out = file.with_name(f"{file.stem}.{arch}.bpf")
            try:
                build(json.loads(file.read_text()), arch, out)
            except RuntimeError as e:
                out.unlink(missing_ok=True)
                out.with_suffix(".refused").write_text(str(e) + "\n")
