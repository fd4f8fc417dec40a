#!/usr/bin/env python3
"""Measures what a process with many servers costs while nothing happens, and while somebody looks at its page.

    benches/page.py idle target/release/acequia
    benches/page.py open target/release/acequia           # 100,000 sessions, or as many as `ulimit -Hn` permits
    benches/page.py idle target/release/acequia 10000x100 # SERVERSxPOOLS; also with `open`

`idle` needs no servers: they are not checked. `open` reads as the page does: the stream of events, the sessions (as
often as the page does with 100,000), and the history, but only once (the page reads it every minute). CPU is that of
the process (utime and stime) over 60 s, in percent of a core.
"""

import http.client, json, multiprocessing, os, resource, socket, subprocess, sys, tempfile, threading, time

SECONDS, SESSIONS_MAX = 60, 100_000
SIZES = [(100, 100), (10_000, 1), (10_000, 100), (10_000, 10_000)]
IP_BIND_ADDRESS_NO_PORT = 24


def config(servers, pools, port):
    """The text of a configuration with that many servers in that many pools. All servers are this machine."""
    each = servers // pools
    address = lambda number: f'"127.{1 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}:{port}"'
    text = '[admin]\nbind = "127.0.0.1:0"\nsocket = "DIRECTORY/admin.sock"\n'
    text += '[listeners.l]\nbind = "127.0.0.1:0"\npool = "p0"\nidle_timeout = "1h"\n'
    text += '[listeners.names]\nbind = "127.0.0.1:0"\n'
    for pool in range(pools):
        text += f'[[listeners.names.routes]]\nsni = "p{pool}.example.com"\npool = "p{pool}"\n'
    for pool in range(pools):
        listed = ", ".join(address(number) for number in range(pool * each, (pool + 1) * each))
        text += f'[pools.p{pool}]\nhealth = {{ check = "off" }}\nservers = [{listed}]\n'
    return text


class Acequia:
    """A process with this configuration, until the end of the block."""

    def __init__(self, program, config):
        self.directory = tempfile.TemporaryDirectory()
        path = f"{self.directory.name}/a.toml"
        with open(path, "w") as file:
            file.write(config.replace("DIRECTORY", self.directory.name))
        self.process = subprocess.Popen([program, "run", "-c", path], stderr=subprocess.PIPE, text=True)
        self.listener = self.admin = None
        while not (self.listener and self.admin):
            line = json.loads(self.process.stderr.readline())
            host, _, port = line.get("address", "").rpartition(":")
            if line["message"] == "admin port":
                self.admin = (host, int(port))
            elif line.get("listener") == "l" and port:
                self.listener = (host, int(port))
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.directory.cleanup()

    def cpu_percent(self):
        """Over SECONDS from now on."""
        def ticks():
            with open(f"/proc/{self.process.pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])
        before, began = ticks(), time.monotonic()
        time.sleep(SECONDS)
        return (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began) * 100

    def get(self, path):
        connection = http.client.HTTPConnection(*self.admin)
        connection.request("GET", f"/api/v1/{path}")
        return connection.getresponse()


def accept(listener):
    """Accepts sessions and keeps them."""
    sessions = []
    while True:
        sessions.append(listener.accept()[0])


def connect(address, count):
    """Opens that many sessions, from several addresses: one address has too few ports."""
    sessions = []
    for number in range(count):
        client = socket.socket()
        client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        client.bind((f"127.200.0.{1 + number // 20_000}", 0))
        client.connect(address)
        sessions.append(client)
    return sessions


def look(acequia, end):
    """Starts threads that read as the page does until `end` is set. Returns the threads."""
    def follow():
        stream = acequia.get("events")
        while not end.is_set() and stream.readline():
            pass

    def poll():
        acequia.get("history").read()
        while not end.wait(max(5, SESSIONS_MAX * 0.0002)):
            acequia.get("sessions?limit=1000&sort=bytes").read()

    readers = [threading.Thread(target=reader, daemon=True) for reader in (follow, poll)]
    for reader in readers:
        reader.start()
    return readers


def idle(program, servers, pools):
    with Acequia(program, config(servers, pools, 9)) as acequia:
        time.sleep(5)
        print(f"{servers} servers in {pools} pools, idle: {acequia.cpu_percent():.2f} % of a core", flush=True)


def open_page(program, servers, pools):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with socket.create_server(("0.0.0.0", 0), backlog=4096) as listener:
        server = multiprocessing.Process(target=accept, args=(listener,), daemon=True)
        server.start()
        with Acequia(program, config(servers, pools, listener.getsockname()[1])) as acequia:
            sessions = connect(acequia.listener, min(SESSIONS_MAX, (most - 1000) // 2))
            time.sleep(10)
            what = f"{servers} servers in {pools} pools, {len(sessions)} sessions"
            print(f"{what}, idle: {acequia.cpu_percent():.2f} % of a core", flush=True)
            end = threading.Event()
            readers = look(acequia, end)
            time.sleep(5)
            print(f"{what}, page open: {acequia.cpu_percent():.2f} % of a core", flush=True)
            end.set()
        for reader in readers:
            reader.join()
        server.kill()


if __name__ == "__main__":
    mode, program, *sizes = sys.argv[1:]
    chosen = [tuple(map(int, size.split("x"))) for size in sizes]
    for servers, pools in chosen or (SIZES if mode == "idle" else SIZES[2:3]):
        {"idle": idle, "open": open_page}[mode](program, servers, pools)
