//! `null`: batches are counted (by whoever sends them) and forgotten.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::scheme::{Built, nothing_follows};
use super::{Cause, Context, Destination, Opener, Payload, SendError};

pub(super) const BUILT: Built =
    Built { parse: |rest, _| nothing_follows(rest).map(|()| Arc::new(Null) as _), options: &[] };

struct Null;

impl Opener for Null {
    fn open(&self, _: &Context) -> Result<Box<dyn Destination>, Cause> {
        Ok(Box::new(Null))
    }
}

impl Destination for Null {
    fn send<'a>(&'a mut self, _payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        ready(Ok(())).boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        ready(Ok(())).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        ready(Ok("takes everything and keeps nothing".to_owned())).boxed()
    }
}
