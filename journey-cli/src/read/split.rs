//! Cuts a stream of OTLP-JSON into pieces small enough to parse one by one.
//!
//! An export request may be a line, a pretty-printed document of many lines, or one document of many gigabytes;
//! the pieces are the same: resources, scopes, spans. Only brackets and strings are followed here, at about the
//! speed of memory; what a piece says is parsed, and judged, by the JSON library. Memory is one buffer, which
//! grows to the largest single piece and no further than [`MAX_PIECE`].

use std::io::{self, Read};
use std::ops::Range;

use memchr::memchr;

use super::scan::{Scan, Step};

/// The largest span, resource or scope that is read; a larger one is reported and skipped.
pub(crate) const MAX_PIECE: usize = 16 << 20;

const CHUNK: usize = 1 << 20;

/// How each export request begins; at the start of a line it shows that the request before it was cut off.
const BEGINNING: &[u8] = b"{\"resourceSpans\"";

/// A piece of an export request.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece<'b> {
    Resource(&'b [u8]),
    Scope(&'b [u8]),
    Span(&'b [u8]),
    EndScopeSpans,
    EndResourceSpans,
    EndDocument { recognised: bool },
}

/// Why the stream is no OTLP-JSON where it stands. But for [`SplitError::TooLarge`], the rest of the document is lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SplitError {
    #[error("the export request is cut off; what stood before the cut was read")]
    Truncated,
    #[error("expected {expected}, found {found}; skipped to the next line that begins with `{{`")]
    Unexpected { expected: &'static str, found: String },
    #[error("a span, resource or scope larger than {} MiB; skipped", MAX_PIECE >> 20)]
    TooLarge,
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Level {
    Document,
    ResourceSpansList,
    ResourceSpans,
    ScopeSpansList,
    ScopeSpans,
    SpanList,
}

/// The cutter. After an error, [`Splitter::next`] goes on with what can still be read; after `Ok(None)` it is done.
pub(crate) struct Splitter<R> {
    input: R,
    buf: Vec<u8>,
    pos: usize,
    filled: usize,
    line: u32,
    /// Line on which the last piece began.
    piece_line: u32,
    stack: Vec<Level>,
    /// A value has ended on this level, so a comma or the closing bracket comes next.
    after_value: bool,
    recognised: bool,
}

impl<R: Read> Splitter<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            buf: vec![0; CHUNK],
            pos: 0,
            filled: 0,
            line: 1,
            piece_line: 1,
            stack: Vec::with_capacity(8),
            after_value: false,
            recognised: false,
        }
    }

    /// The line on which the last piece, or the last error, stands.
    pub(crate) fn place(&self) -> u32 {
        self.piece_line
    }

    pub(crate) fn next(&mut self) -> Result<Option<Piece<'_>>, SplitError> {
        match self.advance() {
            Ok(Some((kind, range))) => {
                let bytes = &self.buf[range];
                Ok(Some(match kind {
                    Kind::Resource => Piece::Resource(bytes),
                    Kind::Scope => Piece::Scope(bytes),
                    Kind::Span => Piece::Span(bytes),
                    Kind::End(Level::ScopeSpans) => Piece::EndScopeSpans,
                    Kind::End(Level::ResourceSpans) => Piece::EndResourceSpans,
                    Kind::End(_) => Piece::EndDocument { recognised: self.recognised },
                }))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                if !matches!(error, SplitError::TooLarge) {
                    self.stack.clear();
                    self.after_value = false;
                }
                if matches!(error, SplitError::Unexpected { .. } | SplitError::Truncated) {
                    self.piece_line = self.line;
                    self.skip_to_next_document()?;
                }
                Err(error)
            }
        }
    }

    fn advance(&mut self) -> Result<Option<(Kind, Range<usize>)>, SplitError> {
        loop {
            let Some(byte) = self.peek()? else {
                return if self.stack.is_empty() { Ok(None) } else { Err(SplitError::Truncated) };
            };
            let Some(level) = self.stack.last().copied() else {
                self.piece_line = self.line;
                if byte != b'{' {
                    return Err(self.unexpected("`{` of an export request"));
                }
                self.push(Level::Document);
                self.recognised = false;
                continue;
            };
            let closing = if level.is_list() { b']' } else { b'}' };
            if byte == closing {
                self.pos += 1;
                self.stack.pop();
                self.after_value = true;
                if !level.is_list() {
                    if level == Level::Document {
                        self.after_value = false;
                    }
                    return Ok(Some((Kind::End(level), 0..0)));
                }
                continue;
            }
            if self.after_value {
                if byte != b',' {
                    return Err(self.unexpected(if level.is_list() { "`,` or `]`" } else { "`,` or `}`" }));
                }
                self.pos += 1;
                self.after_value = false;
                continue;
            }
            if level == Level::SpanList {
                let span = self.value(true)?;
                return Ok(Some((Kind::Span, span)));
            }
            if let Some(inner) = level.element() {
                if byte != b'{' {
                    return Err(self.unexpected("`{`"));
                }
                self.push(inner);
                continue;
            }
            if let Some(piece) = self.member(level, byte)? {
                return Ok(Some(piece));
            }
        }
    }

    /// One `"key": value` of an object on the way down to the spans.
    fn member(&mut self, level: Level, byte: u8) -> Result<Option<(Kind, Range<usize>)>, SplitError> {
        if byte != b'"' {
            return Err(self.unexpected("a key in quotes"));
        }
        let key = self.value(true)?;
        let (list, kind) = match (level, &self.buf[key]) {
            (Level::Document, b"\"resourceSpans\"") => (Some(Level::ResourceSpansList), None),
            (Level::ResourceSpans, b"\"scopeSpans\"") => (Some(Level::ScopeSpansList), None),
            (Level::ResourceSpans, b"\"resource\"") => (None, Some(Kind::Resource)),
            (Level::ScopeSpans, b"\"spans\"") => (Some(Level::SpanList), None),
            (Level::ScopeSpans, b"\"scope\"") => (None, Some(Kind::Scope)),
            // Logs and metrics may share a file with traces; they are no mistake.
            (Level::Document, b"\"resourceLogs\"" | b"\"resourceMetrics\"" | b"\"partialSuccess\"") => {
                self.recognised = true;
                (None, None)
            }
            _ => (None, None),
        };
        self.after_value = false;
        if self.peek()? != Some(b':') {
            return Err(self.unexpected("`:` after a key"));
        }
        self.pos += 1;
        let first = self.peek()?;
        match (list, first) {
            (_, None) => Err(SplitError::Truncated),
            (Some(list), Some(b'[')) => {
                self.recognised = true;
                self.push(list);
                Ok(None)
            }
            (Some(_), Some(b'n')) => self.value(false).map(|_| None),
            (Some(_), Some(_)) => Err(self.unexpected("`[`")),
            (None, Some(_)) => {
                let value = self.value(kind.is_some())?;
                Ok(kind.map(|kind| (kind, value)))
            }
        }
    }

    fn push(&mut self, level: Level) {
        self.pos += 1;
        self.stack.push(level);
        self.after_value = false;
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<Option<u8>, SplitError> {
        loop {
            while self.pos < self.filled {
                match self.buf[self.pos] {
                    b'\n' => {
                        self.pos += 1;
                        self.line += 1;
                        if !self.stack.is_empty() && self.document_begins(self.pos)? {
                            return Err(SplitError::Truncated);
                        }
                    }
                    b' ' | b'\t' | b'\r' => self.pos += 1,
                    // A byte order mark, or the zeros of a file that was preallocated or torn by a crash.
                    0xef if self.stack.is_empty() && self.buf[self.pos..self.filled].starts_with(b"\xef\xbb\xbf") => {
                        self.pos += 3;
                    }
                    byte => return Ok(Some(byte)),
                }
            }
            if !self.refill(self.pos)? {
                return Ok(None);
            }
        }
    }

    /// Passes over one value and returns where it stands in the buffer (nowhere, if it need not be kept).
    fn value(&mut self, mut keep: bool) -> Result<Range<usize>, SplitError> {
        self.piece_line = self.line;
        let wanted = keep;
        let mut start = self.pos;
        let mut scan = Scan::default();
        loop {
            let (passed, step) = scan.run(&self.buf[self.pos..self.filled]);
            self.pos += passed;
            match step {
                Step::Done => {
                    keep &= self.pos - start <= MAX_PIECE;
                    break;
                }
                Step::NewLine => {
                    self.line += 1;
                    keep &= self.pos - start <= MAX_PIECE;
                    if !keep {
                        start = self.pos;
                    }
                    let kept = self.pos - start;
                    if self.document_begins(start)? {
                        return Err(SplitError::Truncated);
                    }
                    start = self.pos - kept;
                }
                Step::CutString => return Err(SplitError::Truncated),
                Step::More => {
                    keep &= self.pos - start <= MAX_PIECE;
                    let from = if keep { start } else { self.pos };
                    if !self.refill(from)? {
                        // A number or a word needs no closing bracket, but never ends an export request either.
                        return Err(SplitError::Truncated);
                    }
                    start = if keep { 0 } else { self.pos };
                }
            }
        }
        self.after_value = true;
        match (wanted, keep) {
            (true, false) => Err(SplitError::TooLarge),
            (true, true) => Ok(start..self.pos),
            (false, _) => Ok(0..0),
        }
    }

    /// Whether an export request begins at `self.pos`, the start of a line. Keeps the buffer from `keep` on.
    fn document_begins(&mut self, keep: usize) -> Result<bool, SplitError> {
        let mut keep = keep;
        while self.filled - self.pos < BEGINNING.len() {
            let have = &self.buf[self.pos..self.filled];
            if !BEGINNING.starts_with(have) {
                return Ok(false);
            }
            let more = self.refill(keep)?;
            keep = 0;
            if !more {
                return Ok(false);
            }
        }
        Ok(self.buf[self.pos..self.filled].starts_with(BEGINNING))
    }

    /// Moves what is kept to the front and reads on; `false` at the end.
    fn refill(&mut self, keep: usize) -> Result<bool, SplitError> {
        self.buf.copy_within(keep..self.filled, 0);
        self.pos -= keep;
        self.filled -= keep;
        if self.buf.len() - self.filled < CHUNK / 4 {
            self.buf.resize(self.buf.len() * 2, 0);
        }
        loop {
            match self.input.read(&mut self.buf[self.filled..]) {
                Ok(count) => {
                    self.filled += count;
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Moves to the next line that begins with `{`, so that a run of garbage is one error.
    fn skip_to_next_document(&mut self) -> Result<(), SplitError> {
        if self.document_begins(self.pos)? {
            return Ok(());
        }
        loop {
            match memchr(b'\n', &self.buf[self.pos..self.filled]) {
                Some(n) => {
                    self.pos += n + 1;
                    self.line += 1;
                    if self.pos == self.filled && !self.refill(self.pos)? {
                        return Ok(());
                    }
                    if self.buf[self.pos] == b'{' {
                        return Ok(());
                    }
                }
                None => {
                    self.pos = self.filled;
                    if !self.refill(self.pos)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn unexpected(&self, expected: &'static str) -> SplitError {
        let bytes = &self.buf[self.pos..self.filled.min(self.pos + 24)];
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
        let found = match std::str::from_utf8(line) {
            Ok(text) if !text.chars().any(char::is_control) => format!("`{text}`"),
            _ => format!("bytes {}", line.iter().take(8).map(|byte| format!("{byte:02x} ")).collect::<String>().trim()),
        };
        SplitError::Unexpected { expected, found }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Resource,
    Scope,
    Span,
    End(Level),
}

impl Level {
    fn is_list(self) -> bool {
        matches!(self, Self::ResourceSpansList | Self::ScopeSpansList | Self::SpanList)
    }

    /// What the objects of a list are, but for spans, which are not looked into.
    fn element(self) -> Option<Self> {
        match self {
            Self::ResourceSpansList => Some(Self::ResourceSpans),
            Self::ScopeSpansList => Some(Self::ScopeSpans),
            _ => None,
        }
    }
}
