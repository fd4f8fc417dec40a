"""A clone for tests: tells each client the number in the database that all clones share, and the clone's port."""

import os
import socket
import subprocess
import sys
import threading
import time

port = int(sys.argv[1])
print("environment", *sorted(os.environ), flush=True)
time.sleep(float(os.environ.get("DELAY", "0")))


def number():
    """What the shared database says; without one, 0."""
    query = os.environ.get("QUERY")
    return subprocess.run(query, shell=True, check=True, capture_output=True, text=True).stdout.strip() if query else "0"


def serve(client):
    with client:
        # A health check has left without sending a byte.
        if client.recv(1, socket.MSG_PEEK):
            client.sendall(f"{number()} {port}\n".encode())
            while client.recv(4096):
                pass


server = socket.create_server(("127.0.0.1", port), backlog=512)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
