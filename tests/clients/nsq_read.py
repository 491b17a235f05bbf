"""Reads messages of an NSQ topic with nothing but a socket, and prints each as a line of base64.

Arguments: port, topic, how many messages. Follows https://nsq.io/clients/tcp_protocol_spec.html.
"""

import base64
import json
import socket
import struct
import sys

RESPONSE, ERROR, MESSAGE = 0, 1, 2


def frame(stream):
    size, kind = struct.unpack(">ii", stream.read(8))
    return kind, stream.read(size - 4)


def main():
    port, topic, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    stream = connection.makefile("rb")
    who = json.dumps({"client_id": "reader", "user_agent": "nsq_read"}).encode()
    connection.sendall(b"  V2IDENTIFY\n" + struct.pack(">i", len(who)) + who)
    connection.sendall(f"SUB {topic} test\n".encode() + b"RDY 1\n")
    while count:
        kind, data = frame(stream)
        if kind == ERROR:
            sys.exit(data.decode())
        if kind == RESPONSE:
            if data == b"_heartbeat_":
                connection.sendall(b"NOP\n")
            continue
        # Eight bytes of time, two of attempts, sixteen of id.
        connection.sendall(b"FIN " + data[10:26] + b"\n")
        print(base64.b64encode(data[26:]).decode(), flush=True)
        count -= 1
    # With this answered, every FIN before it was taken.
    connection.sendall(b"CLS\n")
    while frame(stream) != (RESPONSE, b"CLOSE_WAIT"):
        pass


main()
