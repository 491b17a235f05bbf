"""Lists a bucket and reads every Parquet object in it with pyarrow and with DuckDB; prints one document of JSON.

Argument: JSON with endpoint, scheme, bucket, access_key, secret_key and, for https, ca; with create the bucket is made first. Rows are in the order of their
record_counter; bytes are in hexadecimal.
"""

import json
import os
import sys
import tempfile

import duckdb
import pyarrow.fs
import pyarrow.parquet

COUNTER = "record_counter"


def plain(value):
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


def main():
    options = json.loads(sys.argv[1])
    store = pyarrow.fs.S3FileSystem(
        access_key=options["access_key"],
        secret_key=options["secret_key"],
        endpoint_override=options["endpoint"],
        scheme=options["scheme"],
        region="us-east-1",
        allow_bucket_creation=True,
        **({"tls_ca_file_path": options["ca"]} if "ca" in options else {}),
    )
    if options.get("create"):
        store.create_dir(options["bucket"])
    wanted = pyarrow.fs.FileSelector(options["bucket"], recursive=True)
    objects = sorted(info.path for info in store.get_file_info(wanted) if info.is_file)
    said = {"keys": objects, "compression": set(), "types": {}, "pyarrow": [], "duckdb": []}
    with tempfile.TemporaryDirectory() as folder:
        copies = []
        for number, path in enumerate(objects):
            with store.open_input_stream(path) as stream:
                data = stream.read()
            copies.append(os.path.join(folder, f"{number}.parquet"))
            with open(copies[-1], "wb") as copy:
                copy.write(data)
            file = pyarrow.parquet.ParquetFile(copies[-1])
            for group in range(file.metadata.num_row_groups):
                for column in range(file.metadata.num_columns):
                    said["compression"].add(file.metadata.row_group(group).column(column).compression)
            said["types"] = {field.name: str(field.type) for field in file.schema_arrow}
            said["pyarrow"] += file.read().to_pylist()
        if copies:
            rows = duckdb.connect().execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [copies])
            names = [column[0] for column in rows.description]
            said["duckdb"] = [dict(zip(names, row)) for row in rows.fetchall()]
    for reader in ("pyarrow", "duckdb"):
        said[reader].sort(key=lambda row: row[COUNTER])
        said[reader] = [{name: plain(value) for name, value in row.items()} for row in said[reader]]
    said["compression"] = sorted(said["compression"])
    print(json.dumps(said))


main()
