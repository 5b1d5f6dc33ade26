//! A protobuf writer that writes backwards.
//!
//! A nested message carries its length in front, and the length is known only behind it. Written from the end, every
//! length is known when its place comes: one pass, one buffer, no size computed twice.

use crate::export::otlp::template::{Block, Prefix};

/// Bytes from `start` to the end are written.
#[derive(Debug, Default)]
pub(crate) struct Reverse {
    bytes: Vec<u8>,
    start: usize,
}

/// Wire types (protobuf encoding, "Message Structure").
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

/// The key of a field: its number and its wire type.
const fn tag(field: u32, wire_type: u32) -> u32 {
    field << 3 | wire_type
}

impl Reverse {
    /// Forgets what is written; the memory stays.
    pub(crate) fn clear(&mut self) {
        self.start = self.bytes.len();
    }

    /// What is written.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Bytes written: the mark from which [`Self::message`] counts.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Forgets the `n` bytes that were written first: those at the end.
    pub(crate) fn take_back(&mut self, n: usize) {
        self.bytes.truncate(self.bytes.len() - n);
    }

    /// Writes the meant part of a block, and makes room for all of it.
    #[inline]
    pub(crate) fn block<const N: usize>(&mut self, block: &Block<N>) {
        if self.start < N {
            self.grow(N);
        }
        // What the block holds in front of the meant part lies where the next bytes will be written.
        self.bytes[self.start - N..self.start].copy_from_slice(&block.bytes);
        self.start -= block.len;
    }

    /// An attribute with an integer.
    #[inline]
    pub(crate) fn int_attribute(&mut self, prefix: &Prefix, value: i64) {
        let value = value as u64;
        let mark = self.len();
        self.varint(value);
        // AnyValue: int = 3.
        let n = self.len() - mark;
        self.take(2).copy_from_slice(&[n as u8 + 1, 3 << 3]);
        self.attribute_prefix(prefix, n + 2);
    }

    /// An attribute with a float.
    #[inline]
    pub(crate) fn float_attribute(&mut self, prefix: &Prefix, value: f64) {
        let value = value.to_le_bytes();
        let room = self.take(2 + value.len());
        // AnyValue: double = 4.
        room[..2].copy_from_slice(&[9, 4 << 3 | 1]);
        room[2..].copy_from_slice(&value);
        self.attribute_prefix(prefix, 2 + value.len());
    }

    /// Puts the prefix before an `AnyValue` of `n` bytes, its length included.
    #[inline]
    fn attribute_prefix(&mut self, prefix: &Prefix, n: usize) {
        self.block(&prefix.block);
        self.bytes[self.start + 1] = (prefix.own + n) as u8;
    }

    /// An attribute with a text.
    pub(crate) fn text_attribute(&mut self, prefix: &Prefix, text: &str) {
        let mark = self.len();
        // AnyValue: string = 1.
        self.bytes(1, text.as_bytes());
        self.varint((self.len() - mark) as u64);
        let n = self.len() - mark;
        let length = prefix.own + n;
        if length < 0x80 {
            return self.attribute_prefix(prefix, n);
        }
        // The template's one byte for the length is not enough, and gives way; the field's tag is one byte.
        self.block(&prefix.block);
        let tag = self.bytes[self.start];
        self.start += 2;
        self.varint(length as u64);
        self.take(1)[0] = tag;
    }

    /// Room for `n` more bytes in front of what is written.
    #[inline]
    fn take(&mut self, n: usize) -> &mut [u8] {
        if self.start < n {
            self.grow(n);
        }
        self.start -= n;
        &mut self.bytes[self.start..self.start + n]
    }

    #[cold]
    fn grow(&mut self, n: usize) {
        let written = self.len();
        let capacity = (self.bytes.len() * 2).max(written + n).max(1 << 12);
        let mut bytes = vec![0; capacity];
        bytes[capacity - written..].copy_from_slice(self.as_slice());
        self.start = capacity - written;
        self.bytes = bytes;
    }

    /// Bytes as they are.
    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.take(bytes.len()).copy_from_slice(bytes);
    }

    #[inline]
    pub(crate) fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.take(1)[0] = value as u8;
            return;
        }
        let n = (70 - value.leading_zeros() as usize) / 7;
        let room = self.take(n);
        let mut rest = value;
        for byte in room.iter_mut() {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        room[n - 1] &= 0x7f;
    }

    #[inline]
    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(tag(field, wire_type)));
    }

    /// A `string` or `bytes` field.
    #[inline]
    pub(crate) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.raw(bytes);
        self.varint(bytes.len() as u64);
        self.tag(field, LENGTH);
    }

    /// A `string` or `bytes` field that is left out when it is empty, as proto3 does.
    pub(crate) fn bytes_unless_empty(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes(field, bytes);
        }
    }

    /// An integer or enum field that is left out when it is zero, as proto3 does.
    pub(crate) fn uint_unless_zero(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.uint(field, value);
        }
    }

    #[inline]
    pub(crate) fn uint(&mut self, field: u32, value: u64) {
        self.varint(value);
        self.tag(field, VARINT);
    }

    #[inline]
    pub(crate) fn fixed64(&mut self, field: u32, value: u64) {
        self.raw(&value.to_le_bytes());
        self.tag(field, FIXED64);
    }

    #[inline]
    pub(crate) fn fixed32(&mut self, field: u32, value: u32) {
        self.raw(&value.to_le_bytes());
        self.tag(field, FIXED32);
    }

    /// Makes what was written since `mark` a message in `field`.
    #[inline]
    pub(crate) fn message(&mut self, field: u32, mark: usize) {
        self.varint((self.len() - mark) as u64);
        self.tag(field, LENGTH);
    }
}

#[cfg(test)]
mod tests {
    use prost::encoding::encode_varint;

    use super::*;

    #[test]
    fn varints_are_those_of_protobuf() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let (mut ours, mut theirs) = (Reverse::default(), Vec::new());
                ours.varint(value);
                encode_varint(value, &mut theirs);
                assert_eq!(ours.as_slice(), theirs, "{value}");
            }
        }
    }

    #[test]
    fn the_buffer_grows_to_the_front_and_is_reused() {
        let mut out = Reverse::default();
        for byte in 0..10_000u32 {
            out.raw(&[byte as u8]);
        }
        assert!(out.as_slice().iter().rev().enumerate().all(|(at, byte)| *byte == at as u8));
        let before = out.bytes.len();
        out.clear();
        out.bytes(1, b"again");
        assert_eq!((out.as_slice(), out.bytes.len()), (&b"\x0a\x05again"[..], before));
    }
}
