"""A client that knows nothing of the agent but two addresses: what messages and services there are it learns by gRPC
reflection. Reads rows and events from gRPC, and events from NATS, of one network namespace.

Prints `ready` once all subscriptions stand. Then a line on its standard input names the last event's sequence; when both
ways have brought it, or after ten seconds, prints one JSON object with everything that it read.
"""

import argparse
import asyncio
import json
import sys
import threading

import grpc
import nats
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ROWS = "xtcp_flat_record.v1.XTCPFlatRecordService"
EVENTS = "xtcp_event.v1.EventService"


class Reflected:
    """Calls methods by name, with messages that the server itself described."""

    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = DescriptorPool(self.database)

    def services(self):
        return sorted(self.database.get_services())

    def message(self, name):
        return GetMessageClass(self.pool.FindMessageTypeByName(name))

    def call(self, service, method, request):
        described = self.pool.FindServiceByName(service).FindMethodByName(method)
        reads = GetMessageClass(described.output_type).FromString
        path = f"/{service}/{method}"
        make = self.channel.unary_stream if described.server_streaming else self.channel.unary_unary
        ask = GetMessageClass(described.input_type)(**request)
        return make(path, request_serializer=lambda message: message.SerializeToString(), response_deserializer=reads)(ask)


def plain(message):
    return MessageToDict(message, preserving_proto_field_name=True)


def keep(stream, of, kept):
    try:
        for response in stream:
            kept.append(plain(getattr(response, of)))
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.CANCELLED:
            raise


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--nats", required=True)
    parser.add_argument("--inode", required=True, type=int)
    options = parser.parse_args()

    channel = grpc.insecure_channel(options.grpc)
    reflected = Reflected(channel)
    read = {"services": reflected.services(), "rows": [], "grpc_events": [], "nats_events": []}
    health = reflected.call("grpc.health.v1.Health", "Check", {"service": ROWS})
    read["health"] = plain(health).get("status")

    event = reflected.message("xtcp_event.v1.Event")

    async def on_message(message):
        read["nats_events"].append({"subject": message.subject, **plain(event.FromString(message.data))})

    client = await nats.connect(f"nats://{options.nats}")
    await client.subscribe(f"xtcp.v1.*.{options.inode}.*", cb=on_message)
    await client.flush()

    rows = reflected.call(ROWS, "FlatRecords", {})
    events = reflected.call(EVENTS, "Events", {"netns_inodes": [options.inode]})
    # The head of the answer comes once the stream stands, before its first message.
    for stream, of, kept in [(rows, "xtcp_flat_record", "rows"), (events, "event", "grpc_events")]:
        stream.initial_metadata()
        threading.Thread(target=keep, args=(stream, of, read[kept]), daemon=True).start()

    print("ready", flush=True)
    last = int(await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline))
    ways = [read["grpc_events"], read["nats_events"]]
    for _ in range(1000):
        if all(any(int(event["sequence"]) >= last for event in list(way)) for way in ways):
            break
        await asyncio.sleep(0.01)
    rows.cancel()
    events.cancel()
    await client.close()
    read["rows"] = [row for row in read["rows"] if int(row.get("netns_inode", 0)) == options.inode]
    print(json.dumps(read), flush=True)


asyncio.run(main())
