"""Several processes as one program: they find each other, and end together.

The coordinator, inside process 0, knows by a heartbeat which processes are alive, so that a killed process ends the
others within HEARTBEAT_SECONDS. A process that fails writes so under the key ENDED, which the others read once a
second; otherwise they would wait for it in a collective, or in JAX's shutdown.
"""

import contextlib
import functools
import importlib.util
import ipaddress
import json
import math
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
from jax._src import distributed, xla_bridge  # the only access to the coordinator and to CPU collectives
from jax._src.lib import _jax

from score_sde.errors import UsageError
from score_sde.runtime.preemption import exit_status, stoppable
from score_sde.runtime.sharding import is_first

START_SECONDS = 300
HEARTBEAT_SECONDS = 60
LEAVE_SECONDS = 3  # in which the others may end by themselves
ENDED = "score_sde/ended"
COORDINATOR = "score_sde/coordinator/"  # its address, as each process sees it
LOST = re.compile("gloo|nccl|coordination|barrier|socket closed|connection (reset|closed)|heartbeat", re.IGNORECASE)


@contextlib.contextmanager
def together(coordinator: str | None, num_processes: int | None, process_id: int | None) -> Iterator[None]:
    """Context of one of `num_processes` processes that run the same program, by arguments or environment.

    Enter it before JAX computes anything. When the block fails in one process, all of them end, none with status 0, and
    the error is printed once. Only process 0 prints to stdout. Raises `UsageError` where the processes cannot meet.
    """
    flags = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    arguments = _launched(os.environ) if set(flags.values()) == {None} else _checked(**flags)
    if arguments is None:
        yield
        return
    _start(arguments)
    if not is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
    finished = threading.Event()
    watch = threading.Thread(target=_watch, args=(finished,), daemon=True)
    watch.start()
    try:
        with stoppable():  # again, because JAX has taken over SIGTERM by now
            yield
        distributed.global_state.client.wait_at_barrier("score_sde/finished", START_SECONDS * 1000)
    except BaseException as error:
        finished.set()
        _end(error)
    finished.set()
    watch.join()  # no thread may be inside JAX while Python ends


def _checked(coordinator: str | None, num_processes: int | None, process_id: int | None) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize`; None for a single process."""
    if (coordinator, num_processes, process_id) == (None, 1, None):
        return None
    if coordinator is None or num_processes is None or process_id is None:
        raise UsageError("--coordinator=HOST:PORT, --num_processes=N and --process_id=I go together; give all three.")
    if not re.fullmatch(r".+:\d+", coordinator):
        raise UsageError(f"--coordinator={coordinator} is not HOST:PORT; give a free port of the host of process 0.")
    if not 0 <= process_id < num_processes:
        raise UsageError(f"--process_id={process_id} must be 0, 1, ... below --num_processes={num_processes}.")
    if process_id == 0:
        _check_free(coordinator)
    return dict(coordinator_address=coordinator, num_processes=num_processes, process_id=process_id)


def _check_free(coordinator: str) -> None:
    """Raises `UsageError` for a port in use, where JAX would crash, or share the port with another run."""
    ipv6 = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    try:
        socket.create_server(("", int(coordinator.rpartition(":")[2])), family=family, dualstack_ipv6=ipv6).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--coordinator={coordinator} cannot be used ({error}); give another port.") from error


def _launched(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments like those of `_checked`, from SLURM, (Open) MPI, Kubernetes or a TPU pod; None for a single process.

    JAX's own detection is used only if the launcher has started more than one process: in a batch script without srun,
    for example, it would wait for tasks that nobody starts.
    """

    def number(name: str) -> int:
        value = environment.get(name, "")
        return int(value) if value.isdecimal() else 1

    if (tasks := number("SLURM_STEP_NUM_TASKS")) > 1:
        _check_environment("SLURM", environment, {"SLURM_PROCID": tasks})
        # JAX would take SLURM_NTASKS, which belongs to the job, not to the step.
        process = dict(num_processes=tasks, process_id=int(environment["SLURM_PROCID"]))
        return dict(cluster_detection_method="slurm") | process
    if number("OMPI_COMM_WORLD_SIZE") > 1 and "OMPI_MCA_orte_hnp_uri" in environment:
        return dict(cluster_detection_method="ompi")
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if number(name) > 1 and not _installed("mpi4py"):
            raise UsageError(
                f"MPI started {number(name)} processes, which find each other by mpi4py: pip install mpi4py, or give "
                "--coordinator, --num_processes and --process_id; --num_processes=1 lets each run alone."
            )
        if number(name) > 1:
            return dict(cluster_detection_method="mpi4py")
    on_tpu = _installed("libtpu") and "TPU_SKIP_MDS_QUERY" not in environment  # JAX sets that where there is no TPU
    in_indexed_job = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    if on_tpu or (in_indexed_job and _installed("kubernetes")):  # jax[k8s] needs it to ask for the job's size
        return {}
    return None


# Variables by which JAX finds the processes of a launcher, with a number or text each.
SLURM_SETS = dict.fromkeys(("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_LOCALID"), math.inf) | {"SLURM_STEP_NODELIST": None}
OMPI_SETS = dict.fromkeys(("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"), math.inf)
SETS = {"slurm": ("SLURM", SLURM_SETS), "ompi": ("Open MPI", OMPI_SETS)}


def _check_environment(launcher: str, environment: Mapping[str, str], sets: Mapping[str, float | None]) -> None:
    """Raises `UsageError` for a variable that the launcher sets and that is missing, or no number below a bound."""
    for name, bound in sets.items():
        value = environment.get(name, "")
        if value and (bound is None or (value.isdecimal() and int(value) < bound)):
            continue
        state = f"{name}={value} is no number of a process" if value else f"{name} is missing"
        raise UsageError(
            f"The environment names several processes of {launcher}, but {state}; start them by its own launcher, or "
            "give --coordinator, --num_processes and --process_id; --num_processes=1 runs this process by itself."
        )


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _start(arguments: dict[str, Any]) -> None:
    if method := SETS.get(arguments.get("cluster_detection_method", "")):
        _check_environment(method[0], os.environ, method[1])
    where = arguments.get("coordinator_address", "the coordinator")

    def problem(reason: str) -> UsageError:
        return UsageError(
            f"The processes do not meet at {where} ({reason}); start all of them within {START_SECONDS} s with the "
            "same --coordinator, a free port on the host of process 0, or a single one with --num_processes=1."
        )

    def give_up() -> None:
        os._exit(_tell(problem(f"no answer for {START_SECONDS} s")))

    late = threading.Timer(START_SECONDS, give_up)  # JAX would abort, with a stack trace
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **arguments, initialization_timeout=2 * START_SECONDS, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
        _let_cpus_meet()
    except Exception as error:  # JAX raises various types
        raise problem((str(error).strip() or type(error).__name__).splitlines()[0]) from error
    finally:
        late.cancel()
    if os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1":
        jax.config.update("jax_cuda_visible_devices", "all")  # JAX would take one GPU for each task


def _let_cpus_meet() -> None:
    """Binds JAX's CPU collectives to an address of this host that the other processes reach.

    JAX uses the address of the host's own name, which on Debian and others is a loopback address.
    """
    if jax.config.jax_cpu_collectives_implementation != "gloo":
        return
    client, number = distributed.global_state.client, distributed.global_state.process_id
    own, coordinator = _route_to(distributed.global_state.coordinator_address)
    client.key_value_set(f"{COORDINATOR}{number}", coordinator)
    client.wait_at_barrier("score_sde/addresses", START_SECONDS * 1000)
    address = _reached_at(own, [seen for _, seen in client.key_value_dir_get(COORDINATOR)])
    collectives = _jax.make_gloo_tcp_collectives(distributed_client=client, hostname=address)
    cpus = functools.partial(xla_bridge.make_cpu_client, collectives)
    xla_bridge.register_backend_factory("cpu", cpus, priority=0, fail_quietly=False)


def _route_to(coordinator: str) -> tuple[str, str]:
    """The address of this host that faces HOST:PORT, and the address of HOST."""
    host, _, port = coordinator.rpartition(":")
    addresses = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    for family, kind, _, _, address in sorted(addresses, key=lambda entry: entry[0] != socket.AF_INET):
        with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing
            return probe.getsockname()[0], probe.getpeername()[0]
    raise OSError(f"no route to {coordinator}")


def _reached_at(own: str, coordinators: Sequence[str]) -> str:
    """The address `own`; or if that is loopback, as on the coordinator's host, the one by which others reach it."""

    def loops(address: str) -> bool:
        return ipaddress.ip_address(address).is_loopback

    outside = sorted(address for address in set(coordinators) if not loops(address))
    return outside[0] if loops(own) and outside else own


def _watch(finished: threading.Event) -> None:
    """Ends this process some time after another one has recorded its end."""
    while not finished.wait(1.0):
        ended = _ended()
        if ended and not finished.wait(LEAVE_SECONDS):
            print(f"score_sde: {_lost(ended)}", file=sys.stderr)
            _leave(ended["status"])


def _end(error: BaseException) -> NoReturn:
    """Records why this process fails, unless another has done so, and ends all."""
    if isinstance(error, RuntimeError | ValueError) and not isinstance(error, UsageError) and LOST.search(str(error)):
        error = _LostError(_lost(_ended(), error))
    patience = time.monotonic() + (0 if is_first() else LEAVE_SECONDS / 2)
    while not (ended := _ended()) and time.monotonic() < patience:
        time.sleep(0.1)
    if ended and ended["reason"] == str(error):
        _leave(ended["status"])

    status = _tell(error)
    ended = {"process": jax.process_index(), "reason": str(error), "status": status}
    with contextlib.suppress(Exception):  # another was the first, or the coordinator is gone
        distributed.global_state.client.key_value_set(ENDED, json.dumps(ended))
    _leave(status)


class _LostError(Exception):
    """Another process is gone, as a collective operation has found."""


def _tell(error: BaseException) -> int:
    """Prints the error and returns its exit status."""

    def again(_: list[str]) -> None:
        raise error

    try:
        return exit_status(again, None)
    except _LostError as lost:
        print(f"score_sde: {lost}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    return 1


def _ended() -> dict[str, Any]:
    """The record of the first process that failed; {} without one."""
    try:
        return json.loads(distributed.global_state.client.key_value_try_get(ENDED))
    except Exception:  # no such key; or the coordinator is gone, and JAX itself ends this process
        return {}


def _lost(ended: dict[str, Any], error: BaseException | None = None) -> str:
    """The message on a lost process. error: how it was noticed, printed where no process has recorded its end."""
    why = f" ({str(error).splitlines()[0]})" if error and not ended else ""
    who = f"Process {ended['process']}" if ended else "Another process"
    return f"{who} of this run ended{why}; start all of them again: training goes on from the last checkpoint."


def _leave(status: int) -> NoReturn:
    """Ends this process while all are ending; JAX's own shutdown would wait for processes that cannot come."""
    sys.stderr.flush()
    with contextlib.suppress(Exception):
        distributed.global_state.client.wait_at_barrier("score_sde/leave", 2 * LEAVE_SECONDS * 1000)
    if is_first():
        time.sleep(1)  # the others lose the coordinator with this process
    os._exit(status)
