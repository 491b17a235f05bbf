"""Reads messages from NATS, core or JetStream, and prints a line of JSON for each: subject, headers, data in hex."""

import argparse
import asyncio
import json
import ssl

import nats


def show(message):
    line = {"subject": message.subject, "headers": message.headers or {}, "data": message.data.hex()}
    print(json.dumps(line), flush=True)


async def main(arguments):
    options = {}
    if arguments.ca:
        options["tls"] = ssl.create_default_context(cafile=arguments.ca)
        options["tls"].load_cert_chain(arguments.cert, arguments.key)
    client = await nats.connect(arguments.url, **options)
    if arguments.stream:
        jetstream = client.jetstream()
        await jetstream.add_stream(name=arguments.stream, subjects=[arguments.subject])
        print("ready", flush=True)
        subscription = await jetstream.subscribe(arguments.subject, ordered_consumer=True)
    else:
        subscription = await client.subscribe(arguments.subject, pending_bytes_limit=1 << 30)
        await client.flush()
        print("ready", flush=True)
    async for message in subscription.messages:
        show(message)


parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("subject")
parser.add_argument("--stream", help="make this JetStream stream for the subject, and read it")
parser.add_argument("--ca")
parser.add_argument("--cert")
parser.add_argument("--key")
asyncio.run(main(parser.parse_args()))
