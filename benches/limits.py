#!/usr/bin/env python3
"""Measures guards: how exactly limits of bandwidth are kept, and how long good clients, which are not part of a flood
from 65,000 addresses, wait for an answer during the flood.

    benches/limits.py bandwidth target/release/acequia
    unshare -n benches/limits.py flood target/release/acequia      # as root: in a network namespace of its own

The cores are shared with clients and servers. Prints a line for each measurement.
"""

import multiprocessing, socket, ssl, statistics, struct, subprocess, sys, tempfile, threading, time

SECONDS, ROUNDS, MIB = 10, 5, 1 << 20
SERVER, SOURCES, FLOOD_RATE = "10.8.0.1", 65_000, 6_000
IP_BIND_ADDRESS_NO_PORT = 24


class Acequia:
    """A process with this configuration, until the end of the block."""

    def __init__(self, program, config):
        self.directory = tempfile.TemporaryDirectory()
        self.path = self.directory.name
        with open(f"{self.path}/a.toml", "w") as file:
            file.write(config.replace("DIRECTORY", self.path))
        self.process = subprocess.Popen([program, "run", "-c", f"{self.path}/a.toml"], stderr=subprocess.PIPE, text=True)
        # This message is logged when the listeners are bound. Until they listen, `connected` tries again.
        while '"room"' not in (line := self.process.stderr.readline()):
            if not line:
                raise SystemExit("acequia has ended during the start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.directory.cleanup()

    def resident(self):
        """The resident memory, in kB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def refusals(self):
        """The number of lines of the access log about refused clients."""
        time.sleep(1)  # they are written within 250 ms
        with open(f"{self.path}/access.log") as log:
            return sum('"ending":"limited"' in line or '"ending":"denied"' in line for line in log)


def connected(address, source=None):
    """A connection. A refused one is tried again for 10 s."""
    deadline = time.monotonic() + 10
    while True:
        client = socket.socket()
        try:
            if source:
                client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                client.bind((source, 0))
            client.connect(address)
            return client
        except ConnectionRefusedError:
            client.close()
            if time.monotonic() > deadline:
                raise


def serve(listener, session):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=session, args=(client,), daemon=True).start()


def send_for_ever(client):
    block = bytes(1 << 18)
    try:
        while True:
            client.sendall(block)
    except OSError:
        pass


def receive(address, is_tls, results):
    client = connected(address)
    if is_tls:
        client = ssl._create_unverified_context().wrap_socket(client)
    buffer, total, begin = bytearray(MIB), 0, time.monotonic()
    while time.monotonic() - begin < SECONDS:
        total += client.recv_into(buffer)
    results.put(total / (time.monotonic() - begin) / MIB)


def free_port(ip):
    with socket.create_server((ip, 0)) as listener:
        return listener.getsockname()[1]


def bandwidth(program):
    listener = socket.create_server(("127.0.0.1", 0))
    server = multiprocessing.Process(target=serve, args=(listener, send_for_ever), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as keys:
        request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        request += ["-subj", "/CN=a", "-keyout", f"{keys}/key", "-out", f"{keys}/cert"]
        subprocess.run(request, check=True, stderr=subprocess.DEVNULL)
        for sessions, limit in [(1, "bandwidth_per_session"), (8, "bandwidth")]:
            for is_tls in [False, True]:
                port = free_port("127.0.0.1")
                tls = f'tls = {{ certificates = [{{ cert = "{keys}/cert", key = "{keys}/key" }}] }}\n' if is_tls else ""
                config = f'[guards.g]\n{limit} = "50MiB/s"\n[listeners.l]\nbind = "127.0.0.1:{port}"\npool = "p"\nguards = "g"\n'
                config += f'{tls}[pools.p]\nservers = ["127.0.0.1:{listener.getsockname()[1]}"]\n'
                config += '[admin]\nsocket = "DIRECTORY/s/admin.sock"\n[log]\naccess = "off"\n[runtime]\nworkers = 2\n'
                with Acequia(program, config):
                    results = multiprocessing.Queue()
                    clients = [
                        multiprocessing.Process(target=receive, args=(("127.0.0.1", port), is_tls, results))
                        for _ in range(sessions)
                    ]
                    [client.start() for client in clients]
                    rates = sorted(results.get() for _ in clients)
                    [client.join() for client in clients]
                how = "TLS ends here (copy)" if is_tls else "splice"
                print(f"{sessions} × {limit}, {how}: {sum(rates):.2f} MiB/s, each {rates[0]:.2f} to {rates[-1]:.2f}", flush=True)
    server.kill()


def flood(port, seconds, rate):
    """Connects from all sources in turn, and resets each connection. Returns the number of connections."""
    begin, count = time.monotonic(), 0
    linger = struct.pack("ii", 1, 0)
    while time.monotonic() - begin < seconds:
        behind = begin + count / rate - time.monotonic()
        if behind > 0:
            time.sleep(behind)
        number = count % SOURCES + 1
        try:
            client = connected((SERVER, port), f"10.9.{number >> 8}.{number & 255}")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.close()
        except ConnectionResetError:
            pass  # it was refused already
        count += 1
    return count


def echo(client):
    try:
        with client:
            while data := client.recv(4096):
                client.sendall(data)
    except OSError:
        pass


def ask(port, seconds, results):
    """Good clients, 100 a second, each from an address of its own."""
    begin, times, failed = time.monotonic(), [], 0
    while time.monotonic() - begin < seconds:
        number = len(times) + failed + 1
        start = time.monotonic()
        try:
            with connected((SERVER, port), f"10.10.{number >> 8}.{number & 255}") as client:
                client.settimeout(5)
                client.sendall(b"ping")
                if client.recv(4) == b"ping":
                    times.append(time.monotonic() - start)
                else:
                    failed += 1
        except OSError:
            failed += 1
        time.sleep(max(0, begin + number / 100 - time.monotonic()))
    times.sort()
    percentile_ms = lambda share: times[int(len(times) * share)] * 1e3
    results.put((len(times), failed, percentile_ms(0.5), percentile_ms(0.99)))


def floods(program):
    shell = lambda *words: subprocess.run(words, check=True)
    shell("ip", "link", "set", "lo", "up")
    shell("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
    for network in ["10.9.0.0/16", "10.10.0.0/16"]:
        shell("ip", "route", "add", "local", network, "dev", "lo")
    listener = socket.create_server((SERVER, 5000), backlog=4096)
    server = multiprocessing.Process(target=serve, args=(listener, echo), daemon=True)
    server.start()
    config = '[guards.fair]\nrate_per_source = "1/m"\nburst = 1\nsessions_per_source = 2\n[guards.nobody]\ndeny = "0.0.0.0/0"\n'
    for name, port, guards in [("guarded", 4000, '["fair"]'), ("refusing", 4001, '["nobody"]')]:
        config += f'[listeners.{name}]\nbind = "{SERVER}:{port}"\npool = "p"\nguards = {guards}\n'
    config += f'[listeners.open]\nbind = "{SERVER}:4002"\npool = "p"\n[pools.p]\nservers = ["{SERVER}:5000"]\n'
    config += '[admin]\nsocket = "DIRECTORY/s/admin.sock"\n[log]\naccess = "DIRECTORY/access.log"\n'
    cases = [(4000, 4000, "flood at the guarded listener"), (4001, 4002, "flood at a listener that refuses everything")]
    figures = {name: [] for _, _, name in cases}
    for flood_port, good_port, name in [(None, 4000, "no flood")] + cases * ROUNDS:
        with Acequia(program, config) as acequia:
            if flood_port == 4000:  # each source uses up its `burst` before the measurement
                flood(4000, SOURCES / FLOOD_RATE + 1, FLOOD_RATE)
            before, lines = acequia.resident(), acequia.refusals()
            results = multiprocessing.Queue()
            good = multiprocessing.Process(target=ask, args=(good_port, SECONDS, results))
            good.start()
            count = flood(flood_port, SECONDS, FLOOD_RATE) if flood_port else 0
            served, failed, median, p99 = results.get()
            good.join()
            print(
                f"{name}, {count / SECONDS:.0f}/s: {served} good clients served, {failed} failed, "
                f"p50 {median:.2f} ms, p99 {p99:.2f} ms; memory {before} to {acequia.resident()} kB, "
                f"{acequia.refusals() - lines} lines of refusals",
                flush=True,
            )
        figures.setdefault(name, []).append(p99)
    for name, all_p99 in figures.items():
        print(f"{name}: median of the p99 of {len(all_p99)} rounds {statistics.median(all_p99):.2f} ms")
    server.kill()


if __name__ == "__main__":
    {"bandwidth": bandwidth, "flood": floods}[sys.argv[1]](sys.argv[2])
