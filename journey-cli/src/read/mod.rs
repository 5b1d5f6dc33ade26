//! Reads finished spans from files, standard input and request bodies.
//!
//! The format is recognised by its first bytes: OTLP-JSON (lines, or documents over many lines), OTLP protobuf, either of
//! them under gzip. What cannot be read is a [`Problem`] with its file and line; reading goes on behind it.

mod json;
mod json_scalars;
mod otlp_json;
mod proto;
mod scan;
mod split;
mod wire;

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};

use crate::model::{InstrumentationScope, Resource, Span};

pub use proto::resource_spans;

type SharedResource = Arc<Resource>;
type SharedScope = Arc<InstrumentationScope>;

/// Where spans go as they are read.
pub trait Sink {
    /// Takes a span.
    fn span(&mut self, span: Span, at: At);
    /// Takes note of something that could not be read.
    fn problem(&mut self, problem: Problem);
}

/// Where a span stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Index of the file among those read.
    pub file: u32,
    /// Where in the file.
    pub place: Place,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File,
    /// Of a text: the line, from 1.
    Line(u32),
    /// Of a protobuf: which `ResourceSpans`, from 1.
    Message(u32),
}

impl At {
    /// The place in words, with the name of its file.
    pub fn describe(self, names: &[String]) -> String {
        let name = names.get(self.file as usize).map_or("-", String::as_str);
        format!("{name}{}", self.place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Line(line) => write!(f, ":{line}"),
            Self::Message(number) => write!(f, ", ResourceSpans {number}"),
        }
    }
}

/// Something that could not be read.
#[derive(Debug)]
pub struct Problem {
    /// Where.
    pub at: At,
    /// Why.
    pub error: ReadError,
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be opened or read on.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// The text is not cut as OTLP-JSON is.
    #[error("{0}")]
    Split(String),
    /// A span, resource or scope is not valid.
    #[error("{0}")]
    Json(String),
    /// A document without a word of OTLP.
    #[error("a JSON document without `resourceSpans`: no OTLP export request")]
    NotATrace,
    /// Too many spans before the scope they belong to.
    #[error("more than 65,536 spans stand before their `scope` or `resource`; those are taken as without one")]
    ScopeTooLate,
    /// A protobuf message is not valid.
    #[error("invalid protobuf: {0}")]
    Proto(#[source] prost::DecodeError),
    /// A protobuf body has a field that no export request has.
    #[error("unexpected protobuf field, byte {0:02x}: no OTLP export request; the rest of the file is not read")]
    NotProto(u8),
    /// A protobuf body is cut off.
    #[error("the protobuf body is cut off")]
    CutOff,
    /// A protobuf message contradicts itself.
    #[error("invalid protobuf: {0}; the rest of these ResourceSpans is not read")]
    Malformed(&'static str),
    /// A span, resource or scope of a protobuf body is too large.
    #[error("a span, resource or scope larger than {} MiB; skipped", split::MAX_PIECE >> 20)]
    PieceTooLarge,
    /// An id is too short or too long.
    #[error("{what} id of {length} bytes, not {want}")]
    IdLength {
        /// Which id.
        what: &'static str,
        /// Bytes it has.
        length: usize,
        /// Bytes it must have.
        want: usize,
    },
    /// An id is zero, which means "none".
    #[error("{0} id is all zero")]
    ZeroId(&'static str),
    /// Neither JSON nor protobuf.
    #[error("neither OTLP-JSON nor OTLP protobuf (first bytes {0})")]
    UnknownFormat(String),
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
}

/// Reads the files one after the other (`-` is standard input), with a progress bar where somebody watches.
pub fn read_files(files: &[String], sink: &mut dyn Sink) {
    let total: Option<u64> = files.iter().map(|name| std::fs::metadata(name).ok().map(|meta| meta.len())).sum();
    let bar = match total {
        Some(bytes) => ProgressBar::new(bytes).with_style(bar_style()),
        None => ProgressBar::new_spinner(),
    };
    for (index, name) in files.iter().enumerate() {
        let file = index as u32;
        bar.set_message(name.clone());
        let opened: Result<Box<dyn Read>, io::Error> =
            if name == "-" { Ok(Box::new(io::stdin().lock())) } else { open(name) };
        match opened {
            Ok(input) => read(bar.wrap_read(input), file, sink),
            Err(error) => sink.problem(Problem { at: At { file, place: Place::File }, error: ReadError::Io(error) }),
        }
    }
    bar.finish_and_clear();
}

fn open(name: &str) -> io::Result<Box<dyn Read>> {
    let path = PathBuf::from(name);
    if path.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory; name the files in it"));
    }
    Ok(Box::new(File::open(path)?))
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} eta {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Reads OTLP protobuf from a request's body, span by span: decoded whole it would take a hundred times its size.
pub fn read_protobuf(input: impl Read, sink: &mut dyn Sink) {
    wire::read(input, 0, sink);
}

/// Reads OTLP-JSON, as a request body holds it.
pub fn read_json(input: impl Read, sink: &mut dyn Sink) {
    json::read(input, 0, sink);
}

/// Reads one input, whichever of the formats it is in.
pub fn read(input: impl Read, file: u32, sink: &mut dyn Sink) {
    let at = At { file, place: Place::File };
    match sniff(input) {
        Ok((first, input)) => match first.as_slice() {
            [] => sink.problem(Problem { at, error: ReadError::Empty }),
            [0x1f, 0x8b, ..] => {
                let inside = BufReader::with_capacity(1 << 17, MultiGzDecoder::new(BufReader::new(input)));
                match sniff(inside) {
                    Ok((first, input)) => plain(&first, input, file, sink),
                    Err(error) => sink.problem(Problem { at, error: ReadError::Io(error) }),
                }
            }
            first => plain(first, input, file, sink),
        },
        Err(error) => sink.problem(Problem { at, error: ReadError::Io(error) }),
    }
}

fn plain(first: &[u8], input: impl Read, file: u32, sink: &mut dyn Sink) {
    match first {
        _ if is_proto(first) => wire::read(BufReader::with_capacity(1 << 17, input), file, sink),
        [b'{' | b' ' | b'\t' | b'\r' | b'\n' | b'[' | b'"' | 0xef, ..] => json::read(input, file, sink),
        // Something that begins like text is read as text: one bad line does not hide the lines behind it.
        [byte, ..] if byte.is_ascii_graphic() => json::read(input, file, sink),
        bytes => {
            let shown: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            let at = At { file, place: Place::File };
            sink.problem(Problem { at, error: ReadError::UnknownFormat(shown.join(" ")) });
        }
    }
}

/// Whether a file that begins so is protobuf. Its tag is a line feed, with which a text may begin as well.
fn is_proto(first: &[u8]) -> bool {
    match first {
        [0, ..] => true,
        [wire::RESOURCE_SPANS, b'{' | b'\n' | b'\r' | b' ', third, ..] => {
            matches!(third, 0x0a | 0x12) && first[1] != b'\n'
        }
        [wire::RESOURCE_SPANS, _, ..] => true,
        _ => false,
    }
}

/// The first bytes, and the input with them put back.
fn sniff(mut input: impl Read) -> io::Result<(Vec<u8>, impl Read)> {
    let mut first = Vec::with_capacity(4);
    input.by_ref().take(4).read_to_end(&mut first)?;
    Ok((first.clone(), io::Cursor::new(first).chain(input)))
}
