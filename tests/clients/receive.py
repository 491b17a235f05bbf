"""Receives batches from a socket, and prints a line of JSON for each: its size, its digest and its rows.

Knows nothing but the contract's framing and field numbers. Arguments: tcp|unix|udp|unixgram, HOST:PORT or PATH, and
protobufList|jsonl. Prints "listening" once it does. For tcp and unix one connection after the other is read to its end.
"""

import hashlib
import json
import os
import socket
import sys

RECORD_COUNTER, TIMESTAMP_NS, COOKIE = 60, 10, 1010


def uvarint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(message):
    at = 0
    while at < len(message):
        key, at = uvarint(message, at)
        if key & 7 == 0:
            value, at = uvarint(message, at)
        elif key & 7 == 2:
            length, at = uvarint(message, at)
            assert at + length <= len(message), "a field is longer than its message"
            value, at = message[at : at + length], at + length
        else:
            raise AssertionError(f"wire type {key & 7}")
        yield key >> 3, value


def protobuf_list(data):
    rows, at = [], 0
    while at < len(data):
        length, at = uvarint(data, at)
        assert at + length <= len(data), "an envelope is longer than its batch"
        for number, row in fields(data[at : at + length]):
            assert number == 10, f"field {number} of an envelope"
            row = dict(fields(row))
            rows.append([row.get(TIMESTAMP_NS, 0), row.get(RECORD_COUNTER, 0), row.get(COOKIE, 0)])
        at += length
    return rows


def jsonl(data):
    assert data.endswith(b"\n")
    rows = [json.loads(line) for line in data.splitlines()]
    names = ("timestampNs", "recordCounter", "inetDiagMsgSocketCookie")
    return [[int(row.get(name, 0)) for name in names] for row in rows]


def tell(batch, decode):
    line = {"size": len(batch), "sha256": hashlib.sha256(batch).hexdigest(), "rows": decode(batch)}
    print(json.dumps(line), flush=True)


def exactly(connection, length):
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            return None
        data += more
    return data


def batches(connection):
    while True:
        prefix = b""
        while not prefix or prefix[-1] >= 0x80:
            byte = exactly(connection, 1)
            if byte is None:
                assert not prefix, "the stream ends within a length"
                return
            prefix += byte
        batch = exactly(connection, uvarint(prefix, 0)[0])
        if batch is None:
            return
        yield batch


def main():
    kind, address, decode = sys.argv[1], sys.argv[2], {"protobufList": protobuf_list, "jsonl": jsonl}[sys.argv[3]]
    if kind in ("unix", "unixgram"):
        family = socket.AF_UNIX
        if os.path.exists(address):
            os.unlink(address)
    else:
        host, port = address.rsplit(":", 1)
        family, address = (socket.AF_INET6 if ":" in host else socket.AF_INET), (host.strip("[]"), int(port))
    listener = socket.socket(family, socket.SOCK_DGRAM if kind in ("udp", "unixgram") else socket.SOCK_STREAM)
    if kind == "udp":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    if kind == "tcp":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    if kind in ("udp", "unixgram"):
        print("listening", flush=True)
        while True:
            tell(listener.recv(1 << 20), decode)
    listener.listen()
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        for batch in batches(connection):
            tell(batch, decode)


main()
