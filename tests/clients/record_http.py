"""An HTTP server that keeps what it is sent: a line of JSON for each request on standard output, its body, decoded, in a
file of a folder. The file `answer` there says what it answers."""

import argparse
import gzip
import http.server
import itertools
import json
import pathlib
import socketserver
import ssl
import sys
import threading

import pyarrow

numbers = itertools.count(1)
connections = itertools.count(1)
lock = threading.Lock()


def decoded(encoding, body):
    if encoding is None:
        return body
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "zstd":
        return pyarrow.input_stream(pyarrow.BufferReader(body), compression="zstd").read()
    raise ValueError(f"unknown content encoding {encoding}")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.connection_number = next(connections)

    def take(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = f"{next(numbers)}.bin"
        (arguments.dir / path).write_bytes(decoded(self.headers.get("content-encoding"), body))
        headers = {name.lower(): value for name, value in self.headers.items()}
        line = {"method": self.command, "path": self.path, "headers": headers, "body": path}
        with lock:
            print(json.dumps({**line, "connection": self.connection_number}), flush=True)
        try:
            answer = json.loads((arguments.dir / "answer").read_text())
        except FileNotFoundError:
            answer = {"status": 200, "body": ""}
        text = answer["body"].encode()
        self.send_response(answer["status"])
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PUT = do_OPTIONS = do_GET = take

    def log_message(self, *message):
        print(message, file=sys.stderr, flush=True)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    context = None

    def server_bind(self):
        # The library's own asks the resolver what this host is called.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address

    def finish_request(self, request, client_address):
        # In the connection's own thread: a handshake that never ends must not keep the others waiting.
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)


parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--dir", type=pathlib.Path, required=True)
parser.add_argument("--ca")
parser.add_argument("--cert")
parser.add_argument("--key")
arguments = parser.parse_args()
server = Server(("127.0.0.1", arguments.port), Handler)
if arguments.cert:
    server.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=arguments.ca)
    server.context.verify_mode = ssl.CERT_REQUIRED
    server.context.load_cert_chain(arguments.cert, arguments.key)
server.serve_forever()
