//! `s3parquet:ENDPOINT/BUCKET[/PREFIX]`: each batch becomes one Parquet object, with every field of the record as a column.
//!
//! A send ends when the object is there. Its name comes from the batch alone, so that a batch that is sent again replaces
//! itself.

mod address;
mod columns;
mod parquet_file;
mod reply;
mod store;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use object_store::path::Path;
use object_store::{Attribute, Attributes, MultipartUpload, ObjectStore, ObjectStoreExt, PutOptions};

use super::options::{OptionInfo, Options};
use super::scheme::Built;
use super::{Cause, Context, Destination, Opener, Payload, SendError};
use crate::marshaller::Marshaller;
use crate::tls;
use address::{Place, key};
use columns::Columns;
use store::Access;

pub(super) const BUILT: Built = Built { parse, options: &[&OPTIONS, tls::OPTIONS] };

const OPTIONS: [OptionInfo; 9] = [
    OptionInfo::new(
        "region",
        "NAME (default us-east-1)",
        "Region of the bucket, which is part of each signature.",
    ),
    OptionInfo::new(
        "access-key",
        "NAME",
        "Name of the access key; without it the environment (AWS_ACCESS_KEY_ID, a web identity, a container's role) or the \
         instance's role.",
    ),
    OptionInfo::new("secret-key", "TEXT", "The access key's secret."),
    OptionInfo::new("secret-key-file", "PATH", "File that holds the access key's secret."),
    OptionInfo::new("token", "TEXT", "Session token of a temporary access key."),
    OptionInfo::new("token-file", "PATH", "File that holds the session token."),
    OptionInfo::new(
        "path-style",
        "true|false (default true with a URL, false with a region)",
        "Whether the bucket stands in the path of requests and not in the host's name.",
    ),
    OptionInfo::new("zstd", "LEVEL (default 3)", "Level of compression, 1 to 22."),
    OptionInfo::new(
        "part-bytes",
        "SIZE (default 16MiB)",
        "An object that is larger is uploaded in parts of this size; at least 5MiB.",
    ),
];

/// The only format whose rows are known without its options.
const FORMAT: &str = "protobufList";
/// For whoever lists a bucket.
const CONTENT_TYPE: &str = "application/vnd.apache.parquet";

struct Settings {
    place: Place,
    access: Access,
    zstd: i32,
    part_bytes: usize,
}

fn parse(rest: &str, options: &Options) -> Result<Arc<dyn Opener>, String> {
    let place = Place::parse(rest, options)?;
    let zstd = options.number("zstd", 1, 22)?.unwrap_or(3);
    let part_bytes = options.bytes("part-bytes", 5 << 20, 1 << 30)?.unwrap_or(16 << 20);
    Ok(Arc::new(Settings {
        access: Access::read(options)?,
        place,
        zstd: i32::try_from(zstd).map_err(|error| error.to_string())?,
        part_bytes: usize::try_from(part_bytes).map_err(|error| error.to_string())?,
    }))
}

impl Opener for Settings {
    fn open(&self, context: &Context) -> Result<Box<dyn Destination>, Cause> {
        Ok(Box::new(Bucket {
            store: store::connect(&self.place, &self.access)?,
            place: self.place.clone(),
            hostname: Arc::clone(&context.hostname),
            columns: Arc::new(Columns::new()?),
            zstd: self.zstd,
            part_bytes: self.part_bytes,
        }))
    }

    fn takes(&self, format: &dyn Marshaller) -> Result<(), String> {
        if format.name() == FORMAT { Ok(()) } else { Err(FORMAT.to_owned()) }
    }

    fn patience(&self) -> Option<Duration> {
        // Parts of a large object may go through a narrow line.
        Some(Duration::from_secs(120))
    }
}

struct Bucket {
    store: Arc<dyn ObjectStore>,
    place: Place,
    hostname: Arc<str>,
    columns: Arc<Columns>,
    zstd: i32,
    part_bytes: usize,
}

impl Bucket {
    async fn put(&self, payload: &Payload) -> Result<(), SendError> {
        let (bytes, columns, zstd) = (payload.bytes.clone(), Arc::clone(&self.columns), self.zstd);
        // Thousands of rows with hundreds of columns are compressed: too long for a thread that others wait for.
        let made = tokio::task::spawn_blocking(move || parquet_file::encode(&columns, &bytes, zstd));
        let object = match made.await {
            Ok(Ok(object)) => object,
            Ok(Err(error)) => return Err(self.refused(error)),
            Err(error) => return Err(self.refused(error)),
        };
        let path = key(&self.place, &self.hostname, object.first_ns, &payload.id);
        let result = if object.bytes.len() > self.part_bytes {
            self.put_in_parts(&path, object.bytes).await
        } else {
            let options = PutOptions { attributes: attributes(), ..PutOptions::default() };
            self.store.put_opts(&path, object.bytes.into(), options).await.map(drop)
        };
        result.map_err(|error| self.explained(&error))
    }

    async fn put_in_parts(&self, path: &Path, mut bytes: Bytes) -> object_store::Result<()> {
        let options = object_store::PutMultipartOptions { attributes: attributes(), ..Default::default() };
        let mut upload = self.store.put_multipart_opts(path, options).await?;
        let result = async {
            while !bytes.is_empty() {
                let part = bytes.split_to(bytes.len().min(self.part_bytes));
                upload.put_part(part.into()).await?;
            }
            upload.complete().await.map(drop)
        }
        .await;
        if result.is_err() {
            // Parts that are not put together cost as objects do. Where this fails too, a lifecycle rule ends them.
            let _ = upload.abort().await;
        }
        result
    }

    /// Begins an upload and gives it up: that asks for the same permission as a batch and leaves nothing.
    async fn try_upload(&self) -> object_store::Result<()> {
        let path = key(&self.place, &self.hostname, 0, "probe");
        let mut upload: Box<dyn MultipartUpload> = self.store.put_multipart(&path).await?;
        upload.abort().await
    }

    fn explained(&self, error: &object_store::Error) -> SendError {
        let reply = reply::explain(error, &self.place);
        let cause = format!("s3parquet {}: {}", self.place, reply.text).into();
        if reply.hopeless { SendError::Drop(cause) } else { SendError::Retry(cause) }
    }

    fn refused(&self, error: impl fmt::Display) -> SendError {
        SendError::Drop(format!("s3parquet {}: the batch becomes no Parquet: {error}", self.place).into())
    }
}

fn attributes() -> Attributes {
    Attributes::from_iter([(Attribute::ContentType, CONTENT_TYPE)])
}

impl Destination for Bucket {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        self.put(payload).boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        // A send that succeeded is an object.
        ready(Ok(())).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        async {
            self.try_upload().await.map_err(|error| self.explained(&error))?;
            Ok(format!("{} takes uploads", self.place))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
