#!/usr/bin/python3
"""Drives an engine through Docker's client library for Python, the way Ansible and compose 1.29 do.

    client.py SOCKET CASE ROUNDS

The library does not wait where the docker command line does: it inspects a container as soon as the
stream of an attach ends, and it loses bytes of a stream that arrive together with the head of the
answer. Each case runs ROUNDS rounds in several threads, compares every byte and
every status, and ends with status 1 and the first errors if one is wrong.
"""

import sys
import threading
import time
import traceback

import docker
from docker.errors import ContainerError

IMAGE = "box"
THREADS = 6
# How many numbers a container writes: nothing, less than a segment, much more than a pipe holds.
COUNTS = (0, 1, 30, 2000, 30000)
# The same of a log, which the library reads line by line.
LINES = (0, 1, 30, 500, 3000)


def numbers(count):
    """The shell command that writes the numbers from 1 to count and a word, and its output."""
    text = "".join("%d\n" % n for n in range(1, count + 1)) + "end"
    return "seq 1 %d; echo -n end" % count, text.encode()


def expect(what, got, want):
    """Raises an error if got is not want; long values are shortened to where they differ."""
    if got == want:
        return
    if isinstance(got, bytes) and isinstance(want, bytes) and len(got) + len(want) > 200:
        same = 0
        while got[same : same + 1] == want[same : same + 1] != b"":
            same += 1
        got = "%d bytes, from byte %d on %r" % (len(got), same, got[same : same + 60])
        want = "%d bytes, from byte %d on %r" % (len(want), same, want[same : same + 60])
    raise AssertionError("%s: got %s, want %s" % (what, got, want))


def ended(client, container, code):
    """Expects a container to be seen as ended with an exit status, now."""
    state = client.api.inspect_container(container)["State"]
    expect(
        "state", (state["Status"], state["Running"], state["ExitCode"]), ("exited", False, code)
    )


def attach(client, n):
    """Create, attach, start, read to the end: the state is there, and the network is free."""
    command, output = numbers(COUNTS[n % len(COUNTS)])
    code = n % 7
    network = client.networks.create("net%d" % n)
    c = client.api.create_container(
        IMAGE,
        ["sh", "-c", "%s; echo -n err >&2; exit %d" % (command, code)],
        host_config=client.api.create_host_config(network_mode=network.name),
    )["Id"]
    try:
        stream = client.api.attach(c, stdout=True, stderr=True, stream=True, demux=True)
        client.api.start(c)
        got = [b"", b""]
        for pair in stream:
            for i, part in enumerate(pair):
                got[i] += part or b""
        ended(client, c, code)
        network.remove()
        expect("standard output", got[0], output)
        expect("standard error", got[1], b"err")
        client.api.remove_container(c)
    finally:
        discard(client, c)
        discard_network(network)


def terminal(client, n):
    """An attach of a container with a terminal, whose process reads what is typed."""
    c = client.api.create_container(
        IMAGE,
        ["sh", "-c", "read line; echo got $line; exit %d" % (n % 5)],
        tty=True,
        stdin_open=True,
        network_disabled=True,
    )["Id"]
    try:
        params = {"stdin": 1, "stdout": 1, "stream": 1}
        sock = client.api.attach_socket(c, params=params)
        client.api.start(c)
        sock._sock.sendall(b"typed %d\n" % n)
        got = b""
        while True:
            part = sock.read(4096)
            if not part:
                break
            got += part
        sock.close()
        ended(client, c, n % 5)
        expect("screen", got, b"typed %d\r\ngot typed %d\r\n" % (n, n))
        client.api.remove_container(c)
    finally:
        discard(client, c)


def run(client, n):
    """containers.run returns all that the container wrote, or raises the status of a failure."""
    command, output = numbers(LINES[n % len(LINES)])
    got = client.containers.run(IMAGE, ["sh", "-c", command + "; echo err >&2"], remove=True)
    expect("output", got, output)
    got = client.containers.run(
        IMAGE,
        ["sh", "-c", "{ %s; } >&2; echo out" % command],
        stdout=False,
        stderr=True,
        remove=True,
    )
    expect("errors", got, output)
    try:
        client.containers.run(IMAGE, ["sh", "-c", "echo -n why >&2; exit 9"], remove=True)
    except ContainerError as error:
        expect("failure", (error.exit_status, error.stderr), (9, b"why"))
    else:
        raise AssertionError("a container that ended with 9 is a success")


def exec_run(client, n):
    """exec_run returns all output and the status, with a terminal and without."""
    name = "target%d" % (n % 2)
    try:
        c = client.containers.run(
            IMAGE, ["sleep", "1000"], name=name, detach=True, network_disabled=True
        )
    except docker.errors.APIError:  # another round has made it
        c = client.containers.get(name)
        while c.status != "running":
            c.reload()
    command, output = numbers(COUNTS[n % len(COUNTS)])
    code = n % 6
    both = ["sh", "-c", "%s; echo -n err >&2; exit %d" % (command, code)]
    alone = ["sh", "-c", "%s; exit %d" % (command, code)]
    expect("exec", c.exec_run(alone), (code, output))
    expect("exec with both streams", c.exec_run(both, demux=True), (code, (output, b"err")))
    screen = output.replace(b"\n", b"\r\n")
    expect("exec on a terminal", c.exec_run(alone, tty=True), (code, screen))
    _, parts = c.exec_run(alone, stream=True)
    expect("exec as a stream", b"".join(parts), output)
    # The exec has ended once its stream has, and says so.
    api = client.api
    e = api.exec_create(c.id, both)["Id"]
    expect("exec at once", len(api.exec_start(e)), len(output) + 3)
    got = api.exec_inspect(e)
    expect("exec's state", (got["Running"], got["ExitCode"]), (False, code))
    e = api.exec_create(c.id, ["cat"], stdin=True)["Id"]
    sock = api.exec_start(e, socket=True)
    sock._sock.sendall(output)
    sock._sock.shutdown(1)
    got = b"".join(frame for _, frame in docker.utils.socket.frames_iter(sock, tty=False))
    sock.close()
    expect("exec that reads", got, output)


def logs(client, n):
    """The logs are complete for a client that follows them, and for one that asks afterwards."""
    command, output = numbers(LINES[n % len(LINES)])
    c = client.containers.create(
        IMAGE, ["sh", "-c", "echo begin; sleep 0.1; " + command], network_disabled=True
    )
    output = b"begin\n" + output
    try:
        c.start()
        expect("followed from the start", b"".join(c.logs(stream=True, follow=True)), output)
        ended(client, c.id, 0)
        expect("afterwards", c.logs(), output)
        expect("followed afterwards", b"".join(c.logs(stream=True, follow=True)), output)
        expect("the last two", c.logs(tail=2), b"".join(output.splitlines(True)[-2:]))
        for line in c.logs(timestamps=True).splitlines(True):
            stamp = line.split(b" ")[0]
            expect("time stamp %r" % stamp, (stamp[10:11], stamp[-1:]), (b"T", b"Z"))
    finally:
        discard(client, c.id)


def wait(client, n):
    """wait answers a client that asked before the start, meanwhile, and after the end."""
    api, code, removes = client.api, n % 256, n % 4 == 3
    c = client.containers.create(
        IMAGE,
        ["sh", "-c", "echo -n out; echo -n err >&2; exit %d" % code],
        network_disabled=True,
        auto_remove=removes,
    )
    try:
        # The library's own wait returns at the end; the head of the answer comes when it waits.
        early = api._post(
            api._url("/containers/{0}/wait", c.id),
            params={"condition": "removed" if removes else "next-exit"},
            stream=True,
            timeout=60,
        )
        c.start()
        if removes:
            expect("wait until it is removed", early.json()["StatusCode"], code)
            expect("containers", client.containers.list(all=True, filters={"id": c.id}), [])
        elif n % 2 == 0:
            expect("wait from before", early.json()["StatusCode"], code)
            ended(client, c.id, code)
        else:
            expect("wait while it runs", c.wait()["StatusCode"], code)
            ended(client, c.id, code)
            expect("wait from before", early.json()["StatusCode"], code)
        if not removes:
            logged = c.logs(stdout=False), c.logs(stderr=False)
            expect("logs after the end", logged, (b"err", b"out"))
            expect("wait after the end", c.wait()["StatusCode"], code)
            c.remove()
    finally:
        discard(client, c.id)


def events(client, n):
    """Events come in order and are complete, live and afterwards."""
    other = docker.DockerClient(SOCKET)
    label = "round=%d" % n
    filters = {"label": label, "type": "container"}
    want = ["create", "start", "exec_create", "exec_start", "exec_die", "kill", "die", "destroy"]
    try:
        since = time.time()
        stream = other.api.events(decode=True, filters=filters)
        live = []

        def follow():
            for event in stream:
                live.append(event)
                if event["Action"] == "destroy":
                    stream.close()
                    return

        thread = Thread(follow)
        c = client.containers.run(
            IMAGE,
            ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"],
            labels={"round": str(n)},
            detach=True,
            network_disabled=True,
        )
        for line in c.logs(stream=True, follow=True):
            break
        expect("exec", c.exec_run(["true"]).exit_code, 0)
        c.kill("TERM")
        expect("status", c.wait()["StatusCode"], 7)
        c.remove()
        until = time.time()
        thread.join()
        after = list(
            client.api.events(decode=True, filters=filters, since="%f" % since, until="%f" % until)
        )
        for name, got in (("live", live), ("afterwards", after)):
            expect(name, [e["Action"].split(":")[0] for e in got], want)
            expect(name + ", one container", {e["Actor"]["ID"] for e in got}, {c.id})
            times = [e["timeNano"] for e in got]
            expect(name + ", in order", times, sorted(times))
            expect(name + ", status", got[-2]["Actor"]["Attributes"]["exitCode"], "7")
        expect("both", after, live)
    finally:
        other.close()
        for c in client.containers.list(all=True, filters={"label": label}):
            discard(client, c.id)


def address(client, n):
    """A static address stays over a restart, and is free for another container after rm -f."""
    subnet = "10.213.%d" % n
    pool = docker.types.IPAMPool(subnet=subnet + ".0/24")
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    network = client.networks.create("fixed%d" % n, ipam=ipam)
    api, ids = client.api, []
    try:
        for turn in range(3):
            ids.append(
                api.create_container(
                    IMAGE,
                    ["sleep", "1000"],
                    host_config=api.create_host_config(network_mode=network.name),
                    networking_config=api.create_networking_config(
                        {network.name: api.create_endpoint_config(ipv4_address=subnet + ".77")}
                    ),
                )["Id"]
            )
            api.start(ids[-1])
            api.restart(ids[-1], timeout=0)
            api.stop(ids[-1], timeout=0)
            api.start(ids[-1])
            got = api.inspect_container(ids[-1])["NetworkSettings"]["Networks"][network.name]
            expect("address", got["IPAddress"], subnet + ".77")
            api.remove_container(ids[-1], force=True)
        network.remove()
    finally:
        for c in ids:
            discard(client, c)
        discard_network(network)


def contend(client, n):
    """Verbs that come at once end, in success or in a conflict, and none is in the way of removal."""
    name = "contended%d" % n
    c = client.containers.run(IMAGE, ["sleep", "1000"], name=name, detach=True)
    verbs = [
        lambda api: api.kill(c.id),
        lambda api: api.stop(c.id, timeout=0),
        lambda api: api.restart(c.id, timeout=0),
        lambda api: api.exec_start(api.exec_create(c.id, ["true"])["Id"]),
        lambda api: api.pause(c.id),
        lambda api: api.unpause(c.id),
        lambda api: api.start(c.id),
        lambda api: api.logs(c.id),
        lambda api: api.update_container(c.id, mem_limit="64m", memswap_limit="64m"),
        lambda api: api.remove_container(c.id, force=True),
    ]

    def work(verb):
        other = docker.DockerClient(SOCKET, timeout=60)
        try:
            verb(other.api)
        except docker.errors.APIError as error:
            if error.status_code not in (304, 404, 409):
                raise
        finally:
            other.close()

    try:
        # The last one removes the container, in every second round only.
        threads = [Thread(lambda v=v: work(v)) for v in verbs[: len(verbs) - n % 2]]
        # An exec in a container that stays paused has no end.
        for thread in threads:
            while thread.is_alive() and n % 2:
                work(verbs[5])
                threading.Thread.join(thread, 0.05)
            thread.join()
        if n % 2:
            client.api.remove_container(c.id, force=True)
        else:
            expect("containers", client.containers.list(all=True, filters={"id": c.id}), [])
        # The name is free, and so is what the container had.
        client.containers.run(IMAGE, ["true"], name=name, remove=True)
    finally:
        discard(client, c.id)
        discard(client, name)


class Thread(threading.Thread):
    """A thread that has started, and whose join raises what it ended with."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.error = work, None
        self.start()

    def run(self):
        try:
            self.work()
        except BaseException as error:
            self.error = error

    def join(self):
        super().join(60)
        if self.is_alive():
            raise AssertionError("no end within 60 s")
        if self.error:
            raise self.error


def discard(client, container):
    """Removes a container if it exists."""
    try:
        client.api.remove_container(container, force=True)
    except docker.errors.APIError:
        pass


def discard_network(network):
    """Removes a network if it exists."""
    try:
        network.remove()
    except docker.errors.APIError:
        pass


CASES = [attach, terminal, run, exec_run, logs, wait, events, address, contend]
SOCKET = ""


def main(socket, case, rounds):
    global SOCKET
    SOCKET = "unix://" + socket
    play = {f.__name__: f for f in CASES}[case]
    wrong, rest, lock = [], iter(range(rounds)), threading.Lock()

    def work():
        client = docker.DockerClient(SOCKET, timeout=60)
        while True:
            with lock:
                n = next(rest, None)
            if n is None:
                return
            try:
                play(client, n)
            except Exception:
                wrong.append("round %d: %s" % (n, traceback.format_exc(limit=-3)))

    threads = [Thread(work) for _ in range(THREADS)]
    for t in threads:
        threading.Thread.join(t)
    print("%s: %d of %d rounds are wrong" % (case, len(wrong), rounds))
    for text in wrong[:5]:
        print(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
