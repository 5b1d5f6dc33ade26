//! OTLP-JSON lines in a file, rotated by size.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use opentelemetry_sdk::Resource;

use crate::error::BuildError;
use crate::export::batch::Spans;
use crate::export::exporter::{Destination, Exporter};
use crate::export::json;
use crate::export::lane::{Accepted, Failure, Outcome};
use crate::export::local::Local;

/// A file of OTLP-JSON lines. Made by [`Exporter::file`].
///
/// Each line is a whole `ExportTraceServiceRequest`, written at once: a reader never sees half of one. A file that is
/// there already is continued. When a line would take it beyond the size, the file becomes `NAME.1`, an older
/// `NAME.1` becomes `NAME.2`, and so on.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    max_bytes: u64,
    backups: usize,
}

impl File {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, max_bytes: 100 << 20, backups: 3 }
    }

    /// The size at which the file is rotated, and how many old ones are kept; 100 MiB and 3 if not given. With 0
    /// old ones the file starts anew.
    pub fn rotate(mut self, max_bytes: u64, backups: usize) -> Self {
        self.max_bytes = max_bytes;
        self.backups = backups;
        self
    }
}

impl From<File> for Exporter {
    fn from(file: File) -> Self {
        let label = format!("file {}", file.path.display());
        let key = format!("{file:?}");
        let destination = Destination::local(label, move |start| {
            let path = file.path.clone();
            FileExporter::open(file, start.resource.clone()).map_err(|source| BuildError::File { path, source })
        });
        destination.with_key(key).prompt().into()
    }
}

struct FileExporter {
    settings: File,
    resource: Resource,
    file: fs::File,
    length: u64,
    line: Vec<u8>,
}

impl FileExporter {
    fn open(settings: File, resource: Resource) -> io::Result<Self> {
        let (file, length) = open(&settings.path)?;
        Ok(Self { settings, resource, file, length, line: Vec::new() })
    }

    fn write(&mut self) -> io::Result<()> {
        if self.length > 0 && self.length + self.line.len() as u64 > self.settings.max_bytes {
            self.rotate()?;
        }
        // One call; a disk that fills up may still take only a part of it, which goes again.
        match self.file.write(&self.line) {
            Ok(written) if written == self.line.len() => {
                self.length += written as u64;
                Ok(())
            }
            result => {
                // What cannot be cut off is ended as a line of its own.
                if self.file.set_len(self.length).is_err() {
                    (self.file, self.length) = open(&self.settings.path)?;
                }
                Err(result.err().unwrap_or_else(|| io::ErrorKind::StorageFull.into()))
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: usize| {
            let mut name = self.settings.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.settings.backups).rev() {
            ignore_missing(fs::rename(numbered(number), numbered(number + 1)))?;
        }
        match self.settings.backups {
            0 => ignore_missing(fs::remove_file(&self.settings.path))?,
            _ => ignore_missing(fs::rename(&self.settings.path, numbered(1)))?,
        }
        (self.file, self.length) = open(&self.settings.path)?;
        Ok(())
    }
}

/// Opens for appending, and ends a line that somebody else left unfinished.
fn open(path: &Path) -> io::Result<(fs::File, u64)> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let mut length = file.metadata()?.len();
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }
    Ok((file, length))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Local for FileExporter {
    fn export(&mut self, spans: Spans) -> Outcome {
        self.line.clear();
        json::write_request(&mut self.line, &self.resource, &spans.collect::<Vec<_>>());
        match self.write() {
            Ok(()) => Ok(Accepted::default()),
            // Disks are emptied and mounts come back: the batch waits in the queue, as for a collector.
            Err(error) => Err(Failure::transient(error.to_string())),
        }
    }
}
