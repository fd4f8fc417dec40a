#!/usr/bin/env python3
"""Measures TLS that ends at acequia, HAProxy and nginx (stream), in one run on this machine.

    benches/tls.py target/release/acequia

With `--brief` it takes seconds and shows only that it works; its figures say nothing then. In a network namespace of its own,
the loopback interface must be up: unshare -n sh -c 'ip link set lo up && benches/tls.py target/release/acequia'

Needs Debian's haproxy, nginx and libnginx-mod-stream, and openssl. The clients use the OpenSSL of Python, which up to
version 3.4 prefers X25519. CPU is the proxy's own user and system time for each unit of work. It includes all of the session:
accept, handshake, connect, relay. The machine's cores are shared with the clients: compare ratios only. Prints a table in
Markdown.

The storm of handshakes is an open loop: clients come at a fixed rate, however few are served. Most send a ClientHello and no
more; the others are to complete their handshakes within 5 s. The session whose round trips are measured begins before the storm.
"""

import argparse, collections, multiprocessing, os, resource, signal, socket, ssl, subprocess, tempfile, threading, time

ROUNDS, SECONDS, CLIENTS, IDLE = 3, 1.5, 2, 1000
STORM_SECONDS, HELLOS_A_SECOND, VISITS_A_SECOND, PATIENCE = 8, 2000, 50, 5
TICK = os.sysconf("SC_CLK_TCK")


def shell(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def certificates(directory):
    for kind, options in {"ecdsa": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["-newkey", "rsa:2048"]}.items():
        path = f"{directory}/{kind}"
        shell("openssl", "req", "-x509", *options, "-nodes", "-days", "30", "-subj", "/CN=shop.example",
              "-addext", "subjectAltName=DNS:shop.example", "-keyout", f"{path}.key", "-out", f"{path}.pem")
        with open(f"{path}.all", "w") as both:
            both.write(open(f"{path}.pem").read() + open(f"{path}.key").read())


def serve(listener):
    """Echoes what it gets; for `bulk` it sends 256 MiB instead."""
    def session(connection):
        with connection:
            while request := connection.recv(65536):
                if request == b"bulk":
                    piece = bytes(1 << 20)
                    for _ in range(256):
                        connection.sendall(piece)
                    return
                connection.sendall(request)
    threading.excepthook = lambda _: None  # clients may leave at any time
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=session, args=(connection,), daemon=True).start()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Proxy:
    def __init__(self, name, directory, server, acequia):
        self.name, self.ports = name, {kind: free_port() for kind in ("ecdsa", "rsa")}
        path = f"{directory}/{name}.conf"
        if name == "acequia":
            text = '[runtime]\nworkers = 2\n[log]\naccess = "off"\n[pools.p]\nservers = ["127.0.0.1:%d"]\nhealth.check = "off"\n' % server
            for kind, port in self.ports.items():
                text += f'[listeners.{kind}]\nbind = "127.0.0.1:{port}"\npool = "p"\nkeepalive = "off"\n[listeners.{kind}.tls]\n' \
                        f'certificates = [{{ cert = "{directory}/{kind}.pem", key = "{directory}/{kind}.key" }}]\n'
            path = f"{directory}/acequia.toml"
            command = [acequia, "run", "-c", path]
        elif name == "haproxy":
            text = "global\n nbthread 2\n maxconn 8000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n" \
                   f"backend b\n server s 127.0.0.1:{server}\n"
            for kind, port in self.ports.items():
                text += f"frontend {kind}\n bind 127.0.0.1:{port} ssl crt {directory}/{kind}.all\n default_backend b\n"
            command = ["haproxy", "-db", "-f", path]
        else:
            text = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nworker_processes 2;\n" \
                   f"pid {directory}/nginx.pid;\nerror_log {directory}/nginx.log;\nevents {{ worker_connections 20000; }}\nstream {{\n"
            for kind, port in self.ports.items():
                text += f"server {{ listen 127.0.0.1:{port} ssl reuseport; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on;\n" \
                        f"ssl_certificate {directory}/{kind}.pem; ssl_certificate_key {directory}/{kind}.key; proxy_pass 127.0.0.1:{server}; }}\n"
            text += "}\n"
            command = ["nginx", "-c", path]
        open(path, "w").write(text)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for port in self.ports.values():
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)

    def pids(self):
        children = open(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read().split()
        return [self.process.pid, *map(int, children)]

    def cpu(self):
        total = 0
        for pid in self.pids():
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def memory(self):
        total = 0
        for pid in self.pids():
            for line in open(f"/proc/{pid}/smaps_rollup"):
                if line.startswith(("Private_Dirty", "Private_Clean")):
                    total += int(line.split()[1]) * 1024
        return total


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def connect(made, port, session=None):
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made.wrap_socket(plain, server_hostname="shop.example", session=session)


def shake_hands(port, until, is_resumed, counts):
    made, session, done, resumed = context(), None, 0, 0
    while time.monotonic() < until:
        with connect(made, port, session) as client:
            client.sendall(b"x")
            client.recv(1)
            resumed += client.session_reused
            if is_resumed:
                session = client.session
            done += 1
    counts.put((done, resumed))


def ping(port, until, since, counts):
    """Measures the round trips that begin from `since` until `until`, whenever they end."""
    made, took = context(), []
    with connect(made, port) as client:
        while (began := time.monotonic()) < until:
            client.sendall(bytes(64))
            client.recv(64)
            if began >= since:
                took.append(time.monotonic() - began)
            time.sleep(0.001)
    counts.put(took)


def result(counts):
    """What a process has put into `counts`. A process that fails puts nothing there, and prints its error."""
    return counts.get(timeout=STORM_SECONDS + 2 * PATIENCE + 30)


def together(work, port, *arguments, clients=CLIENTS):
    until, counts = time.monotonic() + SECONDS, multiprocessing.Queue()
    running = [multiprocessing.Process(target=work, args=(port, until, *arguments, counts)) for _ in range(clients)]
    for process in running:
        process.start()
    results = [result(counts) for _ in running]
    for process in running:
        process.join()
    return results


def handshakes(proxy, kind, is_resumed):
    before = proxy.cpu()
    results = together(shake_hands, proxy.ports[kind], is_resumed)
    done, resumed = (sum(column) for column in zip(*results))
    assert not is_resumed or resumed > 0.8 * done, f"{proxy.name}: {resumed} of {done} resumed"
    return 1e6 * (proxy.cpu() - before) / done


def bulk(proxy):
    before, began, total = proxy.cpu(), time.monotonic(), 0
    buffer = bytearray(1 << 18)
    with connect(context(), proxy.ports["ecdsa"]) as client:
        client.sendall(b"bulk")
        while count := client.recv_into(buffer):
            total += count
    return [(proxy.cpu() - before) * 1e9 / total, total * 8e-9 / (time.monotonic() - began)]


def p99(took):
    return sorted(took)[int(len(took) * 0.99)] * 1e6


def client_hello():
    outgoing = ssl.MemoryBIO()
    try:
        context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="shop.example").do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()


def at_rate(rate, until):
    """Yields `rate` times a second. When the caller is late, yields without a pause until it has caught up."""
    due = time.monotonic()
    while (now := time.monotonic()) < until:
        if now < due:
            time.sleep(due - now)
        due += 1 / rate
        yield now


def vanish(port, until, counts):
    """Sends ClientHellos and never completes a handshake. A client gives up after a second."""
    hello, held, begun = client_hello(), collections.deque(), 0
    for now in at_rate(HELLOS_A_SECOND, until):
        begun += 1
        try:
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(hello)
            held.append((now, client))
        except OSError:
            pass  # refused or reset: it was an attempt all the same
        while held and held[0][0] < now - 1:
            held.popleft()[1].close()
    counts.put(begun)


def visit(port, until, counts):
    """Begins handshakes, and counts those that are complete in time."""
    done, threads, made = [], [], context()

    def shake_hands_once():
        try:
            plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            began = time.monotonic()
            with made.wrap_socket(plain, server_hostname="shop.example") as client:
                client.sendall(b"x")
                if client.recv(1) and time.monotonic() - began < PATIENCE:
                    done.append(1)
        except OSError:
            pass

    for _ in at_rate(VISITS_A_SECOND, until):
        threads.append(threading.Thread(target=shake_hands_once))
        threads[-1].start()
    for thread in threads:
        thread.join()
    counts.put((len(done), len(threads)))


def round_trips(proxy):
    return p99(together(ping, proxy.ports["ecdsa"], 0, clients=1)[0])


def in_a_storm(proxy):
    """The p99 of round trips, the ClientHellos a second, and the percentage of other handshakes that were completed."""
    since = time.monotonic() + 1
    until, results = since + STORM_SECONDS, [multiprocessing.Queue() for _ in range(3)]
    ports, (hellos, visits, trips) = proxy.ports, results
    running = [multiprocessing.Process(target=ping, args=(ports["ecdsa"], until, since, trips)),
               multiprocessing.Process(target=vanish, args=(ports["rsa"], until, hellos)),
               multiprocessing.Process(target=visit, args=(ports["rsa"], until, visits))]
    for process in running:
        process.start()
        time.sleep(max(since - time.monotonic(), 0))
    hellos, (done, visits), took = map(result, results)
    for process in running:
        process.join()
    return [p99(took), hellos / STORM_SECONDS, 100 * done / visits]


def idle(proxy):
    made, before = context(), proxy.memory()
    held = []
    for _ in range(IDLE):
        client = connect(made, proxy.ports["ecdsa"])
        client.sendall(b"x")
        client.recv(1)
        held.append(client)
    time.sleep(1)
    return (proxy.memory() - before) / IDLE


def options():
    global ROUNDS, SECONDS, STORM_SECONDS, IDLE
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("acequia", help="the binary")
    parser.add_argument("--brief", action="store_true", help="shows only that it works")
    chosen = parser.parse_args()
    if chosen.brief:
        ROUNDS, SECONDS, STORM_SECONDS, IDLE = 0, 0.3, 1, 50
    return chosen


def main():
    chosen = options()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    directory = tempfile.mkdtemp(prefix="bench-tls-")
    certificates(directory)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = multiprocessing.Process(target=serve, args=(listener,), daemon=True)
    server.start()
    names = ["acequia", "haproxy", "nginx"]
    proxies = [Proxy(name, directory, listener.getsockname()[1], os.path.abspath(chosen.acequia)) for name in names]
    rows = {}
    try:
        # Measured first: after a storm, the idle sessions would reuse memory that the process already has.
        memory = {proxy.name: [idle(proxy)] for proxy in proxies}
        for number in range(ROUNDS + 1):  # the first is a warm-up
            for proxy in proxies[number % 3:] + proxies[:number % 3]:
                found = {
                    "full handshake, ECDSA P-256 (µs of CPU)": handshakes(proxy, "ecdsa", False),
                    "full handshake, RSA 2048 (µs of CPU)": handshakes(proxy, "rsa", False),
                    "resumed handshake (µs of CPU)": handshakes(proxy, "ecdsa", True),
                }
                found["bulk (CPU seconds a GB)"], found["bulk (Gbit/s)"] = bulk(proxy)
                found["round trip, p99 (µs)"] = round_trips(proxy)
                storm = ("the same in a storm (µs)", "its ClientHellos a second", "other handshakes completed in it (%)")
                found.update(zip(storm, in_a_storm(proxy)))
                if number > 0 or chosen.brief:
                    for row, value in found.items():
                        rows.setdefault(row, {}).setdefault(proxy.name, []).append(value)
        rows["private memory of an idle session (bytes)"] = memory
    finally:
        for proxy in proxies:
            proxy.process.send_signal(signal.SIGTERM)
        server.terminate()
    print("| | " + " | ".join(names) + " | acequia to HAProxy |\n|---|---|---|---|---|")
    for row, values in rows.items():
        middle = [sorted(values[name])[len(values[name]) // 2] for name in names]
        print(f"| {row} | " + " | ".join(f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in middle)
              + f" | {middle[0] / middle[1] if middle[1] else float('inf'):.2f} |")


main()
