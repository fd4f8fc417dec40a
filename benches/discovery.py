#!/usr/bin/env python3
"""Measures how fast a pool takes another list of 10,000 servers, and how much this delays a session meanwhile.

    benches/discovery.py target/release/acequia [file] [http] [etcd]

Two servers listen at all addresses of 127.0.0.0/8, each at a port of its own; a list has 10,000 addresses. A change
fills the list with the addresses of the other server ("all"), or replaces one address ("one"). One client exchanges
bytes through acequia all the time, and another one comes and goes every 2 ms. After a change of all, the new list is in
use when a new session gets a server of it. Before the next change, the benchmark reads the metrics until they count all
servers. Acequia shares the cores with clients and servers. Prints a table in Markdown; times are in milliseconds.
"""

import base64, http.server, json, multiprocessing, os, re, socket, statistics, subprocess, sys, tempfile, threading, time
import urllib.request

SERVERS, ROUNDS, QUIET_SECONDS = 10_000, 5, 3


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(listener, name):
    """Greets with its name, and echoes."""
    def session(client):
        try:
            client.sendall(name)
            while piece := client.recv(4096):
                client.sendall(piece)
        except OSError:
            pass
        client.close()
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=session, args=(client,), daemon=True).start()


class Server:
    def __init__(self, name):
        listener = socket.create_server(("0.0.0.0", 0), backlog=4096)
        self.port = listener.getsockname()[1]
        self.process = multiprocessing.Process(target=serve, args=(listener, name), daemon=True)
        self.process.start()
        listener.close()

    def addresses(self):
        return [f"127.{1 + n // 62_500}.{n // 250 % 250}.{1 + n % 250}:{self.port}" for n in range(SERVERS)]


class File:
    def __init__(self, directory):
        self.path = f"{directory}/servers.json"
        self.plan = f'file = "{self.path}"'

    def put(self, addresses):
        with open(f"{self.path}.next", "w") as file:
            json.dump(addresses, file)
        os.rename(f"{self.path}.next", self.path)

    def close(self):
        pass


class Http:
    """Asked every second: the measured times include the wait for the next request."""

    def __init__(self, directory):
        source = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(source.body)))
                self.end_headers()
                self.wfile.write(source.body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.plan = f'http = "http://127.0.0.1:{self.server.server_port}/", interval = "1s"'

    def put(self, addresses):
        self.body = json.dumps(addresses).encode()

    def close(self):
        self.server.shutdown()


class Etcd:
    """Each server is a key; the keys that change are put in transactions of at most 100."""

    def __init__(self, directory):
        self.client, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            ["etcd", "--data-dir", f"{directory}/etcd", "--unsafe-no-fsync", "--listen-client-urls", self.client,
             "--advertise-client-urls", self.client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", f"default={peer}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.plan, self.put_before = 'etcd = "/s/"', []
        self.providers = f'[providers.etcd]\nendpoints = ["{self.client}"]\n'

    def put(self, addresses):
        encoded = lambda text: base64.b64encode(text.encode()).decode()
        before = dict(enumerate(self.put_before))
        puts = [{"requestPut": {"key": encoded(f"/s/{n:05}"), "value": encoded(address)}}
                for n, address in enumerate(addresses) if before.get(n) != address]
        for first in range(0, len(puts), 100):
            body = json.dumps({"success": puts[first:first + 100]}).encode()
            for _ in range(100):
                try:
                    urllib.request.urlopen(f"{self.client}/v3/kv/txn", body).read()
                    break
                except OSError:
                    time.sleep(0.1)
        self.put_before = addresses

    def close(self):
        self.process.terminate()
        self.process.wait()


class Acequia:
    def __init__(self, program, directory, source, keys):
        config = f"{directory}/a.toml"
        with open(config, "w") as file:
            file.write(f"""
                [runtime]
                state_dir = "{directory}/state"
                [admin]
                bind = "127.0.0.1:0"
                socket = "off"
                [log]
                access = "off"
                {getattr(source, "providers", "")}
                [listeners.l]
                bind = "127.0.0.1:0"
                pool = "p"
                [pools.p]
                discover = {{ {source.plan}, settle = "0s" }}
                {keys}
                """)
        self.process = subprocess.Popen([program, "run", "-c", config], stderr=subprocess.PIPE, text=True)
        self.address = self.metrics = None
        while not (self.address and self.metrics):
            line = self.process.stderr.readline()
            assert line, "acequia has ended"
            for port in re.findall(r"127\.0\.0\.1:(\d+)", line):
                if "admin" in line:
                    self.metrics = f"http://127.0.0.1:{port}/metrics"
                elif '"listening"' in line:
                    self.address = ("127.0.0.1", int(port))
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def client(self):
        """A session, and the name of its server; the name is empty if there is no server yet."""
        client = socket.create_connection(self.address, timeout=10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return client, client.recv(1)
        except ConnectionResetError:
            return client, b""

    def wait_for_server(self, name):
        while True:
            client, served_by = self.client()
            client.close()
            if served_by == name:
                return
            time.sleep(0.001)

    def wait_for_all(self):
        while True:
            text = urllib.request.urlopen(self.metrics).read().decode()
            counts = re.findall(r'^acequia_pool_servers\{.*\} (\d+)$', text, re.M)
            if sum(map(int, counts)) == SERVERS:
                return
            time.sleep(0.01)

    def cpu(self):
        """The CPU time that the process has used so far, in milliseconds."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            words = stat.read().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) * 1000 / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.kill()
        self.process.wait()


def echo(address, pipe):
    """A client that sends bytes and waits for their echo, all the time. Answers each request from the pipe with the
    worst round trip since the request before."""
    client = socket.create_connection(address)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.recv(1)
    worst = 0
    while True:
        began = time.perf_counter()
        client.sendall(b"x")
        client.recv(1)
        worst = max(worst, time.perf_counter() - began)
        if pipe.poll():
            pipe.recv()
            pipe.send(worst * 1000)
            worst = 0
        time.sleep(0.0002)


def visit(address):
    """A client that opens and closes sessions, with pauses of 2 ms."""
    while True:
        with socket.create_connection(address) as client:
            try:
                client.recv(1)
            except OSError:
                pass
        time.sleep(0.002)


def measure(program, title, kind, keys):
    a, b = Server(b"a"), Server(b"b")
    with tempfile.TemporaryDirectory() as directory:
        source = kind(directory)
        old, new = a.addresses(), b.addresses()
        source.put(old)
        acequia = Acequia(program, directory, source, keys)
        acequia.wait_for_server(b"a")
        acequia.wait_for_all()
        pipe, end = multiprocessing.Pipe()
        clients = [multiprocessing.Process(target=echo, args=(acequia.address, end), daemon=True),
                   multiprocessing.Process(target=visit, args=(acequia.address,), daemon=True)]
        for client in clients:
            client.start()

        def worst():
            pipe.send(None)
            return pipe.recv()

        def change(addresses, name):
            worst()
            cpu, began = acequia.cpu(), time.perf_counter()
            source.put(addresses)
            put = time.perf_counter()
            if name:
                acequia.wait_for_server(name)
            used = time.perf_counter()
            time.sleep(1.5)  # what follows the change: the first checks, and what is written to `state_dir`
            cpu = acequia.cpu() - cpu
            acequia.wait_for_all()
            return (used - began) * 1000, (used - put) * 1000, worst(), cpu

        worst()
        cpu = acequia.cpu()
        time.sleep(QUIET_SECONDS)
        quiet, cpu = worst(), (acequia.cpu() - cpu) / QUIET_SECONDS * 1.5
        all_other, one_other = [], []
        for _ in range(ROUNDS):
            all_other.append(change(new, b"b"))
            one_other.append(change(new[:-1] + old[-1:], None))
            all_other.append(change(old, b"a"))
        for what, found in (("all", all_other), ("one", one_other)):
            from_begin, from_put, round_trip, spent = (statistics.median(column) for column in zip(*found))
            waited = f"{from_begin:.0f} | {from_put:.0f}" if what == "all" else "| "
            print(f"| {title} | {what} | {waited} | {round_trip:.1f} ({max(f[2] for f in found):.1f}) | {quiet:.1f} | {spent:.0f} | {cpu:.0f} |", flush=True)
        for client in clients:
            client.terminate()
        acequia.end()
        source.close()
    a.process.terminate(), b.process.terminate()


if __name__ == "__main__":
    program = sys.argv[1]
    print("| source | changed | in use after the begin of the change | in use after its end | worst round trip: median (highest) of the rounds "
          "| worst round trip without a change | CPU from the begin of the change until 1.5 s after the list is in use (one: after the end of the change) | CPU of 1.5 s without a change |")
    print("|---|---|---|---|---|---|---|---|")
    kinds = {"file": File, "http": Http, "etcd": Etcd}
    for kind in sys.argv[2:] or kinds:
        measure(program, f"{kind}, without checks", kinds[kind], 'health = { check = "off" }')
        measure(program, f"{kind}, with checks", kinds[kind], "")
