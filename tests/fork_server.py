"""A fork server: tests start `toolkit` and its workers by forking a process that has the imports.

A new interpreter spends seconds on `import torch` and its like, and the tests start very many.
`install()` replaces the part of `subprocess.Popen` that executes a program: the console script,
`python -m toolkit…`, torchrun and `python FILE.py` are forked from a server process. Everything
else is executed as usual. The product does not know of it.

A forked process is a true child of its caller, with the caller's session, working directory,
environment, limits, processor cores and signal dispositions, so it can be waited for, stopped and
killed like any other. It differs from a new interpreter in three ways: modules are already
imported, `/proc/PID/cmdline` is the server's, and memory is shared with the server. A test that
depends on one of these has the mark `real_start`.

A process is executed as usual as well if its environment differs from the server's in a variable
that a library may read at import time. A PYTHONPATH of Python files is no such variable: what these
files replace, and the product, are imported anew after the fork.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import io
import json
import os
import resource
import runpy
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import typer.main

from tests.artifacts import made_once

PRELOADED = (
    "onnx.inliner",
    "onnx.reference",
    "onnxruntime",
    "onnxscript.function_libs.torch_lib.ops",
    "onnxscript.rewriter.onnx_fusions",
    "openvino",
    "pydantic",
    "rich.live",
    "rich.progress",
    "rich.table",
    "requests",
    "safetensors.numpy",
    "scipy.ndimage",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.metrics",
    "sklearn.model_selection",
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "torch.export._trace",
    "torch.fx.experimental.validator",
    "torch.onnx._internal.exporter._core",
    "torch.onnx._internal.exporter._torchlib.ops",
    "typer._adapters",
    "tensorflow",
    "tf2onnx",
    "toolkit.cli.main",
    "toolkit.measuring.workers.client",
    "toolkit.report.write",
    "toolkit.benchmarking.bench",
    "toolkit.exporting.export",
    "toolkit.training.train",
    "toolkit.verification.verify",
    "toolkit.trainers.torch_eager",
)
"""What most processes import. None of it starts a thread that a forked process would miss."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
HARMLESS = {
    *THREADS,
    "TF_NUM_INTRAOP_THREADS",
    "COLUMNS",
    "HOME",
    "LINES",
    "NO_COLOR",
    "PATH",
    "PWD",
    "PYTEST_CURRENT_TEST",
    "TERM",
    "TMPDIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "XDG_CACHE_HOME",
}
"""Variables that may differ from the server's: read at run time, or applied after the fork."""

OF_TORCHRUN = {
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID"),
    *("TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_SIGNALS_TO_HANDLE"),
    *("TORCH_NCCL_ASYNC_ERROR_HANDLING",),
}
"""Variables of a process that torchrun starts, which the process group reads at run time."""

QUICK_TO_FORK = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Of the server: memory in huge pages, whose page tables a fork copies sooner."""

PRODUCT = {"calibration", "exporters", "models", "runtimes", "toolkit"}

TORCHRUN = "torch.distributed.run"
NESTING = ("toolkit", "toolkit.study.worker", TORCHRUN)
"""Modules whose processes start workers themselves; so does the console script."""

SERVER = "from tests import fork_server; fork_server.main()"
SCRIPT = Path(sys.executable).with_name("toolkit")
PYTHONS = {str(SCRIPT.with_name(name)) for name in ("python", "python3")}
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
RESERVED_FDS = 64  # descriptors below are left free for those that callers pass by number
ENDS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})

accepted: dict[str, str] = {}
"""The environment of this process when the present test began: what its imports have set so far."""

enabled = True
"""Whether processes are forked; False while a test with the mark `real_start` runs."""

_server: _Channel | None = None
_further: list[str] = []
_base_environment: dict[str, str] = {}
_set_by_imports: dict[str, str] = {}
_execute: Callable[..., None] = subprocess.Popen._execute_child  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A process to start, as JSON on the channel; its descriptors go beside it."""

    argv: list[str]
    module: str | None
    directory: str | None
    cwd: str
    env: dict[str, str]
    fds: list[int]
    new_session: bool
    cpus: list[int]
    limits: list[tuple[int, int]]
    umask: int
    ignored: list[int]


class _Channel:
    """A connection to a fork server, which is a child of this process."""

    def __init__(
        self, connection: socket.socket, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        self._connection = connection
        self._process = process
        self._lock = threading.Lock()

    def start(self, request: Request, fds: Sequence[int]) -> int:
        """Return the process ID of a new child of this process."""
        with self._lock:
            _prctl(PR_SET_CHILD_SUBREAPER, 1)  # the server's grandchild becomes our child
            try:
                _send(self._connection, json.dumps(asdict(request)).encode(), fds)
                reply = self._connection.recv(8)
            finally:
                _prctl(PR_SET_CHILD_SUBREAPER, 0)
        if len(reply) != 8:
            raise RuntimeError("The fork server of the tests is gone.")
        return int(struct.unpack("q", reply)[0])

    def close(self) -> None:
        self._connection.close()
        if self._process is not None:
            self._process.wait()


def install(*modules: str) -> None:
    """Let this process start `toolkit` and its workers from a fork server of its own.

    `modules` are imported by the server beside those of PRELOADED.
    """
    _further[:] = modules
    os.register_at_fork(after_in_child=_forget)
    subprocess.Popen._execute_child = _execute_child  # type: ignore[attr-defined]


def _forget() -> None:
    global _server
    _server = None


def _connected() -> _Channel:
    """The server, which is started when it is first needed."""
    global _server
    if _server is None:
        _base_environment.update(os.environ)
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVER, *_further],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **QUICK_TO_FORK},
        )
        theirs.close()
        _server = _Channel(ours, process)
        atexit.register(_server.close)
    return _server


def _execute_child(
    self: Any,
    args: Any,
    executable: Any,
    preexec_fn: Any,
    close_fds: bool,
    pass_fds: Sequence[int],
    cwd: Any,
    env: Mapping[str, str] | None,
    startupinfo: Any,
    creationflags: int,
    shell: bool,
    p2cread: int,
    p2cwrite: int,
    c2pread: int,
    c2pwrite: int,
    errread: int,
    errwrite: int,
    restore_signals: bool,
    gid: Any,
    gids: Any,
    uid: Any,
    umask: int,
    start_new_session: bool,
    process_group: int,
) -> None:
    """The counterpart of Popen's own method of this name (Python 3.11 to 3.13)."""
    pipes = (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
    plain = preexec_fn is None and not shell and (gid, gids, uid, umask) == (None, None, None, -1)
    program = _program(args) if enabled and plain and process_group in (-1, None) else None
    environment = dict(os.environ if env is None else env)
    if program is None or not _alike(environment):
        _execute(
            self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
            creationflags, shell, *pipes, restore_signals, gid, gids, uid, umask,
            start_new_session, process_group,
        )  # fmt: skip
        return
    module, directory, argv = program
    standard = [
        given if given != -1 else i for i, given in enumerate((p2cread, c2pwrite, errwrite))
    ]
    current = os.umask(0)
    os.umask(current)
    request = Request(
        argv=argv,
        module=module,
        directory=directory,
        cwd=str(Path(cwd or ".").resolve(strict=True)),
        env=environment,
        fds=[0, 1, 2, *pass_fds],
        new_session=start_new_session,
        cpus=sorted(os.sched_getaffinity(0)),
        limits=[resource.getrlimit(limit) for limit in LIMITS],
        umask=current,
        ignored=[number for number in ENDS if signal.getsignal(number) == signal.SIG_IGN],
    )
    self.pid = _connected().start(request, [*standard, *pass_fds])
    self._child_created = True
    self._close_pipe_fds(*pipes)


def _program(args: Any) -> tuple[str | None, str | None, list[str]] | None:
    """The module, the first entry of `sys.path` and the arguments of a command that can be forked.

    The module is None for a script. The entry is "" for the working directory, None for none.
    """
    if isinstance(args, (str, bytes, os.PathLike)):
        return None
    words = [os.fspath(word) for word in args]
    if words[0] == str(SCRIPT):
        return None, str(SCRIPT.parent), words
    if words[0] not in PYTHONS or len(words) < 2:
        return None
    if words[1].endswith(".py"):
        return None, str(Path(words[1]).resolve().parent), words[1:]
    option, *rest = words[2:] if words[1] == "-u" else words[1:]
    safe = option == "-P"
    if safe:
        option, *rest = rest
    if option == "-m" and (rest[0].partition(".")[0] == "toolkit" or rest[0] == TORCHRUN):
        return rest[0], None if safe else "", rest
    return None


def _alike(environment: Mapping[str, str]) -> bool:
    """Whether what was imported in the server's environment fits this one."""
    _connected()
    names = environment.keys() | _base_environment.keys()
    checked = names - HARMLESS - OF_TORCHRUN - _set_by_imports.keys() - {"PYTHONPATH"}
    return _only_python(_added_path(environment)) and all(
        environment.get(name) in (_base_environment.get(name), accepted.get(name))
        for name in checked
    )


def _added_path(environment: Mapping[str, str]) -> list[str]:
    """The entries of PYTHONPATH that the server does not have."""
    added = environment.get("PYTHONPATH", "").removesuffix(_base_environment.get("PYTHONPATH", ""))
    return [entry for entry in added.split(os.pathsep) if entry]


def _only_python(path: Sequence[str]) -> bool:
    """Whether a running interpreter can import what is there in the place of what it has."""
    files = (file for entry in path for file in Path(entry).rglob("*"))
    return not any(file.suffix == ".so" or file.stem == "sitecustomize" for file in files)


def _prepend(path: Sequence[str]) -> None:
    """Do to `sys.path` what PYTHONPATH does, and forget the modules that this may alter."""
    names = {file.stem for entry in path for file in Path(entry).iterdir()} | PRODUCT
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]
    sys.path[:0] = path
    importlib.invalidate_caches()


def main() -> None:
    """The process of the server. Its children return from `_serve`, and become what was asked."""
    connection = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    for name in QUICK_TO_FORK:
        os.environ.pop(name, None)
    _base_environment.update(os.environ)
    reserved = [os.open(os.devnull, os.O_RDONLY) for _ in range(RESERVED_FDS)]
    high = socket.socket(fileno=os.dup(connection.fileno()))
    connection.close()
    for module in (*PRELOADED, *sys.argv[1:]):
        with contextlib.suppress(ImportError):  # an environment for a GPU has fewer packages
            importlib.import_module(module)
    _share_vega()
    typer.main.get_command = functools.cache(typer.main.get_command)  # it takes a tenth of a second
    typer.main.get_command(importlib.import_module("toolkit.cli.main").app)
    names = os.environ.keys() - _base_environment.keys()
    _set_by_imports.update({name: os.environ[name] for name in names})
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    with contextlib.suppress(RuntimeError):  # there is no C++ compiler
        pick_vec_isa()  # or each process would compile torch's checks of the CPU
    for number in reserved:
        os.close(number)
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False  # those of torch take a tenth of a second
    gc.collect()
    gc.freeze()  # a collection in a child would copy the pages of everything
    os.register_at_fork(after_in_child=_forget)
    _live(*_serve(high))


def _share_vega() -> None:
    """Let one process bundle the script of Vega for the reports that the others write."""
    from toolkit.report import page

    bundle = page._library

    def make(place: Path) -> None:
        (place / "vega.js").write_text(bundle(), "utf-8")

    def shared() -> str:
        return (made_once("vega", (), make) / "vega.js").read_text("utf-8")

    page._library = functools.cache(shared)


def _live(request: Request, fds: list[int]) -> NoReturn:
    """Run the program of the request, and end as an interpreter does.

    Except for destructors of libraries: those of ONNX Runtime wait for threads of the server.
    """
    code: object = 0
    try:
        _become(request, fds)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)  # noqa: T201
        code = 1
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 120  # as CPython does
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(int(code or 0) & 0xFF)  # type: ignore[call-overload]


def _serve(connection: socket.socket) -> tuple[Request, list[int]]:
    """Fork a process for each request. Returns in these only."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)  # it ends with the connection
    while True:
        message, fds = _receive(connection)
        if not message:
            os._exit(0)
        request = Request(**json.loads(message))
        ready, go = os.pipe()
        told, tell = os.pipe()
        between = os.fork()
        if between == 0:
            if os.fork():
                os.kill(os.getpid(), signal.SIGKILL)  # no exit handlers
            if request.new_session:
                os.setsid()  # before the caller can signal the group
            os.sched_setaffinity(0, request.cpus)  # before the caller can ask for it
            os.write(tell, struct.pack("q", os.getpid()))
            for number in (go, told, tell):
                os.close(number)
            os.read(ready, 1)
            os.close(ready)
            connection.close()
            return request, fds
        for number in (ready, tell, *fds):
            os.close(number)
        reply = os.read(told, 8)
        os.waitpid(between, 0)  # from here on the new process is the caller's child
        os.close(told)
        connection.send(reply)
        os.close(go)


def _become(request: Request, fds: list[int]) -> None:
    """Take on everything of the request, and run its program."""
    _take(fds, request.fds)
    os.chdir(request.cwd)
    os.umask(request.umask)
    os.environ.clear()
    os.environ.update({**_set_by_imports, **request.env})
    for limit, values in zip(LIMITS, request.limits, strict=True):
        resource.setrlimit(limit, tuple(values))
    for number in ENDS:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request.ignored else default)
    _renew()
    if path := _added_path(request.env):
        _prepend(path)
    _base_environment.clear()
    _base_environment.update(request.env)
    if request.module is None or request.module in NESTING:
        _nest()
    else:
        subprocess.Popen._execute_child = _execute  # type: ignore[attr-defined]
    sys.argv[:] = request.argv
    if request.directory is not None:
        sys.path.insert(0, str(Path(request.directory).resolve()))
    if request.module is None:
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def _take(fds: list[int], numbers: list[int]) -> None:
    """Give the received descriptors the numbers that they had in the caller."""
    moved = [_above(number) for number in fds]
    for number in fds:
        os.close(number)
    for given, number in zip(moved, numbers, strict=True):
        os.dup2(given, number)
        os.close(given)


def _above(number: int) -> int:
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 2 * RESERVED_FDS)


def _renew() -> None:
    """Renew what an interpreter sets up when it starts, and libraries when they are imported."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        raw = open(number, mode + "b", buffering=-1, closefd=False)  # noqa: SIM115
        lines = name == "stderr" or os.isatty(number)
        errors = "backslashreplace" if name == "stderr" else "strict"
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors=errors, line_buffering=lines)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    tempfile.tempdir = None
    import numpy as np
    from threadpoolctl import threadpool_limits

    np.random.seed()  # noqa: NPY002  # or all children would draw the same
    threads = {os.environ[name] for name in THREADS if name in os.environ}
    cores = len(os.sched_getaffinity(0))
    threadpool_limits(min(map(int, threads)) if threads else cores)
    if "coverage" in sys.modules and (running := sys.modules["coverage"].Coverage.current()):
        running.switch_context(os.environ.get("PYTEST_CURRENT_TEST", ""))


def _nest() -> None:
    """Leave a copy of this process behind, still unused, as the fork server of its workers."""
    global _server
    ours, theirs = socket.socketpair()
    high = _above(theirs.fileno())
    theirs.close()
    if os.fork() == 0:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        ours.close()
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(RESERVED_FDS):
            with contextlib.suppress(OSError):
                os.dup2(null, number) if number < 3 else os.close(number)
        _live(*_serve(socket.socket(fileno=high)))
    os.close(high)
    high = _above(ours.fileno())
    ours.close()
    _server = _Channel(socket.socket(fileno=high))
    subprocess.Popen._execute_child = _execute_child  # type: ignore[attr-defined]


def _send(connection: socket.socket, message: bytes, fds: Sequence[int]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    frame = struct.pack("q", len(message)) + message
    sent = connection.sendmsg([frame], ancillary)
    connection.sendall(frame[sent:])


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    frame, fds, _, _ = socket.recv_fds(connection, 8, 64)
    if len(frame) < 8:
        return b"", []
    left = struct.unpack("q", frame)[0]
    message = b""
    while len(message) < left:
        message += connection.recv(left - len(message))
    return message, list(fds)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
