"""HTTP server that broadcasts raw PCM: each sample's value is its number."""

import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

# Program that fetches a stream, as ffmpeg or curl does.
FETCH = """
import shutil, sys, urllib.request
with urllib.request.urlopen(sys.argv[1]) as stream:
    while data := stream.read1(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
"""


class BroadcastServer(ThreadingHTTPServer):
    """Server of 24-bit samples; the value of each is its number since the start."""

    daemon_threads = True
    rate = 8000
    step_s = 0.02
    refuses = False  # whether it answers new requests with an error

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _StreamHandler)
        self.began = time.monotonic()
        self.cut = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *error):
        self.cut.set()
        self.shutdown()
        super().__exit__(*error)


class _StreamHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        if server.refuses:
            self.send_error(503)
            return
        self.send_response(200)
        self.end_headers()
        server.cut.clear()
        sent = at = int((time.monotonic() - server.began) * server.rate)
        with suppress(OSError):
            while not server.cut.wait(server.step_s):
                at = int((time.monotonic() - server.began) * server.rate)
                numbers = np.arange(sent, at, dtype="<i4")
                self.wfile.write(numbers.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
                sent = at
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args):
        pass
