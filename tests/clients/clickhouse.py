"""ClickHouse's engine on recorded inserts: makes the table as deploy/ has it, inserts each body as the INSERT's own words
say, and prints a line of JSON for each row: the columns as they are asked for."""

import argparse
import pathlib
import sys

from chdb import session

parser = argparse.ArgumentParser()
parser.add_argument("--table", type=pathlib.Path, required=True, help="SQL that makes the table")
parser.add_argument("--schemas", type=pathlib.Path, required=True, help="folder of format schemas")
parser.add_argument("--select", required=True, help="the last query")
parser.add_argument("inserts", nargs="*", help="INSERT and the file of its body, alternating")
arguments = parser.parse_args()

import os
os.chdir(arguments.schemas)
engine = session.Session()
for statement in arguments.table.read_text().split(";\n"):
    lines = [line for line in statement.splitlines() if not line.startswith("--")]
    if any(line.strip() for line in lines):
        engine.query("\n".join(lines))
for insert, body in zip(arguments.inserts[::2], arguments.inserts[1::2]):
    into, form = insert.rsplit(" FORMAT ", 1)
    engine.query(f"{into.replace(' SETTINGS ', f' SELECT * FROM file({body!r}, {form!r}) SETTINGS ', 1)}")
print(engine.query(arguments.select, "JSONEachRow"), end="")
sys.stdout.flush()
