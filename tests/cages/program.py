"""What the tests put into a cage in the harness's place: serves POST /exec on the page's socket, ends on SIGTERM.

The standard library only, and no file of ours: its text is handed to the cage's Python with `-c`.
"""

import http.server
import json
import os
import pathlib
import signal
import socketserver
import subprocess
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["content-length"])))
        try:
            done = subprocess.run(
                order["argv"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=order["timeout_seconds"],
            )
            answer = {"exit_code": done.returncode, "output": done.stdout.decode(errors="replace")}
        except subprocess.TimeoutExpired:
            answer = {"exit_code": -1, "output": ""}
        except OSError as error:
            answer = {"exit_code": 127, "output": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "host"

    def log_message(self, *arguments):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def end(number, frame):
    pathlib.Path(os.environ["HIVE_STATE"], "last-words").write_text("asked to end")
    os._exit(0)


signal.signal(signal.SIGTERM, end)
address = pathlib.Path(os.environ["HIVE_PAGE"], "page.sock")
address.unlink(missing_ok=True)
print("up", os.environ["HIVE_AGENT"], os.environ["HIVE_GENERATION"], flush=True)
server = Server(str(address), Handler)
address.chmod(0o660)
threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    time.sleep(0.1)  # not signal.pause(): one that comes right before it would wait for the next
