//! Cuts OTLP protobuf into pieces small enough to decode one by one, as the cutter of JSON does.
//!
//! A body is a message in a message in a message; only keys and lengths are followed here, down to the spans. One body after another
//! reads as one long body, so that a file of several is fine.

use std::io::{self, Read};
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::InstrumentationScope as OtlpScope;
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use prost::Message;

use super::split::MAX_PIECE;
use super::{At, Place, Problem, ReadError, SharedResource, SharedScope, Sink, proto};

/// First byte of an export request: the key of `resource_spans`, field 1, length-delimited.
pub(super) const RESOURCE_SPANS: u8 = 0x0a;

/// Keys of what is looked into; any other field is passed over.
const FIRST_FIELD: u64 = 0x0a;
const SECOND_FIELD: u64 = 0x12;

/// Reads export requests until the input ends.
pub(super) fn read(input: impl Read, file: u32, sink: &mut dyn Sink) {
    let mut wire = Wire { input, position: 0, buffer: Vec::new() };
    let mut number = 0;
    loop {
        number += 1;
        let at = At { file, place: Place::Message(number) };
        let end = match wire.next_body() {
            Ok(Some(end)) => end,
            Ok(None) => return,
            Err(error) => return sink.problem(Problem { at, error }),
        };
        if let Err(error) = wire.resource_spans(end, at, sink) {
            let fatal = matches!(error, ReadError::Io(_) | ReadError::CutOff);
            sink.problem(Problem { at, error });
            // The length of the whole still holds, whatever is wrong inside.
            if fatal || wire.skip(end.saturating_sub(wire.position)).is_err() {
                return;
            }
        }
    }
}

struct Wire<R> {
    input: R,
    /// Bytes read so far.
    position: u64,
    buffer: Vec<u8>,
}

impl<R: Read> Wire<R> {
    /// Passes the key and length of the next `resource_spans`; gives the position where it ends, or nothing at the end.
    fn next_body(&mut self) -> Result<Option<u64>, ReadError> {
        loop {
            let mut key = [0];
            match self.input.read(&mut key) {
                Ok(0) => return Ok(None),
                Ok(_) => self.position += 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ReadError::Io(error)),
            }
            match key[0] {
                RESOURCE_SPANS => {
                    let length = self.varint()?;
                    return Ok(Some(self.position.saturating_add(length)));
                }
                // The Collector's file exporter puts each body's length before it: four bytes, most significant first.
                0 => self.skip(3)?,
                other => return Err(ReadError::NotProto(other)),
            }
        }
    }

    fn resource_spans(&mut self, end: u64, at: At, sink: &mut dyn Sink) -> Result<(), ReadError> {
        let mut resource = SharedResource::default();
        while self.position < end {
            match self.field(end)? {
                (FIRST_FIELD, length) => {
                    if let Some(piece) = self.piece::<OtlpResource>(length, at, sink)? {
                        resource = Arc::new(proto::resource(piece));
                    }
                }
                (SECOND_FIELD, length) => self.scope_spans(self.position + length, &resource, at, sink)?,
                (_, length) => self.skip(length)?,
            }
        }
        Ok(())
    }

    fn scope_spans(
        &mut self,
        end: u64,
        resource: &SharedResource,
        at: At,
        sink: &mut dyn Sink,
    ) -> Result<(), ReadError> {
        let mut scope = SharedScope::default();
        while self.position < end {
            match self.field(end)? {
                (FIRST_FIELD, length) => {
                    if let Some(piece) = self.piece::<OtlpScope>(length, at, sink)? {
                        scope = Arc::new(proto::scope(piece));
                    }
                }
                (SECOND_FIELD, length) => {
                    if let Some(piece) = self.piece::<OtlpSpan>(length, at, sink)? {
                        match proto::convert(piece, resource, &scope) {
                            Ok(span) => sink.span(span, at),
                            Err(error) => sink.problem(Problem { at, error }),
                        }
                    }
                }
                (_, length) => self.skip(length)?,
            }
        }
        Ok(())
    }

    /// The key of the next field and the bytes of its value.
    fn field(&mut self, end: u64) -> Result<(u64, u64), ReadError> {
        let key = self.varint()?;
        let length = match key & 7 {
            2 => self.varint()?,
            0 => return self.varint().map(|_| (key, 0)),
            1 => 8,
            5 => 4,
            _ => return Err(ReadError::Malformed("a field of unknown type")),
        };
        match self.position.checked_add(length) {
            Some(field_end) if field_end <= end => Ok((key, length)),
            _ => Err(ReadError::Malformed("a field that is longer than what it stands in")),
        }
    }

    /// Reads and decodes one piece; a bad one is told, and nothing.
    fn piece<T: Message + Default>(
        &mut self,
        length: u64,
        at: At,
        sink: &mut dyn Sink,
    ) -> Result<Option<T>, ReadError> {
        if length > MAX_PIECE as u64 {
            sink.problem(Problem { at, error: ReadError::PieceTooLarge });
            return self.skip(length).map(|()| None);
        }
        self.buffer.clear();
        let got = self.input.by_ref().take(length).read_to_end(&mut self.buffer).map_err(ReadError::Io)? as u64;
        self.position += got;
        if got < length {
            return Err(ReadError::CutOff);
        }
        match T::decode(self.buffer.as_slice()) {
            Ok(piece) => Ok(Some(piece)),
            Err(error) => {
                sink.problem(Problem { at, error: ReadError::Proto(error) });
                Ok(None)
            }
        }
    }

    fn varint(&mut self) -> Result<u64, ReadError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.input.read_exact(&mut byte).map_err(cut_off)?;
            self.position += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ReadError::Malformed("a number of more than 64 bits"))
    }

    fn skip(&mut self, length: u64) -> Result<(), ReadError> {
        let passed = io::copy(&mut self.input.by_ref().take(length), &mut io::sink()).map_err(ReadError::Io)?;
        self.position += passed;
        if passed < length { Err(ReadError::CutOff) } else { Ok(()) }
    }
}

fn cut_off(error: io::Error) -> ReadError {
    if error.kind() == io::ErrorKind::UnexpectedEof { ReadError::CutOff } else { ReadError::Io(error) }
}
