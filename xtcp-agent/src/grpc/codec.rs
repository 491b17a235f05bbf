//! Answers whose only field is a message that is already encoded: nothing is decoded to be encoded again.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Tag of field 1, length-delimited.
const FIELD_1: u8 = 0x0a;
/// How much is gathered before it is handed to HTTP/2.
const BUFFERS: (usize, usize) = (16 * 1024, 64 * 1024);

/// An encoded message.
pub(super) trait Encoded: Send + 'static {
    /// Its bytes.
    fn bytes(&self) -> &[u8];
}

impl Encoded for Bytes {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Reads requests of type `R`; writes answers with an `A` in field 1.
pub(super) struct FieldOne<R, A>(PhantomData<fn() -> (R, A)>);

impl<R, A> Default for FieldOne<R, A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: Message + Default + 'static, A: Encoded> Codec for FieldOne<R, A> {
    type Encode = A;
    type Decode = R;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<R, A: Encoded> Encoder for FieldOne<R, A> {
    type Item = A;
    type Error = Status;

    fn encode(&mut self, answer: A, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let bytes = answer.bytes();
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        buffer.reserve(1 + encoded_len_varint(length) + bytes.len());
        buffer.put_u8(FIELD_1);
        encode_varint(length, buffer);
        buffer.put_slice(bytes);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFERS.0, BUFFERS.1)
    }
}

impl<R: Message + Default + 'static, A> Decoder for FieldOne<R, A> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        R::decode(buffer).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
