//! One spooled request: a file that says itself whether it is whole.
//!
//! ```text
//! magic, 8 bytes │ spans u32 │ events u32 │ length u64 │ CRC-32 of the request u32 │ CRC-32 of all before u32 │ request
//! ```
//!
//! Little-endian. The request is an `ExportTraceServiceRequest` in protobuf.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::stats::Count;

const MAGIC: [u8; 8] = *b"JRNSPL\0\x01";
pub(crate) const HEADER: usize = 32;

/// What stands in front of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) count: Count,
    length: u64,
    checksum: u32,
}

impl Header {
    fn of(request: &[u8], count: Count) -> Self {
        Self { count, length: request.len() as u64, checksum: crc32fast::hash(request) }
    }

    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&(self.count.spans as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.count.events as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.checksum.to_le_bytes());
        let own = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    /// `None` where it is not a header, or not the one that was written.
    fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let length = u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes"));
        let whole = bytes[..8] == MAGIC && word(28) == crc32fast::hash(&bytes[..28]);
        let count = Count { spans: word(8).into(), events: word(12).into() };
        whole.then_some(Self { count, length, checksum: word(24) })
    }
}

/// What a file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Cut short or changed behind its header, which says what was in it.
    Request(Count),
    /// Nobody can tell what was in it.
    Header,
}

/// Writes a request to `part`, then names it `whole`: there is never half a request under that name.
pub(crate) fn write(part: &Path, whole: &Path, request: &[u8], count: Count) -> io::Result<u64> {
    let mut options = OpenOptions::new();
    // Never through a link that somebody put there.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = (|| {
        if let Err(error) = fs::remove_file(part)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = options.open(part)?;
        file.write_all(&Header::of(request, count).to_bytes())?;
        file.write_all(request)
    })();
    if let Err(error) = written.and_then(|()| fs::rename(part, whole)) {
        // What a full disk took of it would be found broken later.
        let _ = fs::remove_file(part);
        return Err(error);
    }
    Ok((HEADER + request.len()) as u64)
}

/// Reads the header, and compares the file's length with it.
///
/// # Errors
/// The disk does not give it now, which says nothing about what is in it.
pub(crate) fn inspect(path: &Path) -> io::Result<Result<Header, Broken>> {
    let mut bytes = [0; HEADER];
    let read = File::open(path).and_then(|mut file| {
        file.read_exact(&mut bytes)?;
        file.metadata()
    });
    let length = match read {
        Ok(metadata) => metadata.len(),
        Err(error) if is_broken(&error) => return Ok(Err(Broken::Header)),
        Err(error) => return Err(error),
    };
    let Some(header) = Header::parse(&bytes) else { return Ok(Err(Broken::Header)) };
    // A header may say anything that has a checksum.
    match Some(length) == header.length.checked_add(HEADER as u64) {
        true => Ok(Ok(header)),
        false => Ok(Err(Broken::Request(header.count))),
    }
}

/// Reads the request, if it is the one that was written.
///
/// # Errors
/// The disk does not give it now, which says nothing about what is in it.
pub(crate) fn read(path: &Path) -> io::Result<Result<Vec<u8>, Broken>> {
    let header = match inspect(path)? {
        Ok(header) => header,
        Err(broken) => return Ok(Err(broken)),
    };
    let mut bytes = fs::read(path)?;
    let request = bytes.split_off(HEADER.min(bytes.len()));
    match request.len() as u64 == header.length && crc32fast::hash(&request) == header.checksum {
        true => Ok(Ok(request)),
        false => Ok(Err(Broken::Request(header.count))),
    }
}

/// Whether it will be the same the next time.
fn is_broken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let [part, whole, victim] = ["part", "whole", "victim"].map(|name| directory.path().join(name));
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, &part).unwrap();
        write(&part, &whole, b"spans", Count { spans: 1, events: 0 }).unwrap();
        assert_eq!((fs::read(&victim).unwrap(), read(&whole).unwrap()), (b"mine".to_vec(), Ok(b"spans".to_vec())));
    }

    #[test]
    fn what_could_not_be_written_whole_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let [part, whole] = ["part", "whole"].map(|name| directory.path().join(name));
        fs::create_dir(&whole).unwrap();
        write(&part, &whole, b"spans", Count { spans: 1, events: 0 }).unwrap_err();
        assert!(!part.exists());
    }

    proptest! {
        #[test]
        fn a_file_that_was_cut_or_changed_anywhere_is_never_taken_for_whole(
            request in prop::collection::vec(any::<u8>(), 0..300),
            cut in any::<prop::sample::Index>(),
            flip in (any::<prop::sample::Index>(), 1..=255u8),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let (part, whole) = (directory.path().join("part"), directory.path().join("whole"));
            let count = Count { spans: 3, events: 14 };
            let length = write(&part, &whole, &request, count).unwrap() as usize;
            prop_assert_eq!(read(&whole).unwrap(), Ok(request));
            let bytes = fs::read(&whole).unwrap();

            fs::write(&whole, &bytes[..cut.index(length)]).unwrap();
            let expected = if cut.index(length) < HEADER { Broken::Header } else { Broken::Request(count) };
            prop_assert_eq!(read(&whole).unwrap(), Err(expected));

            let mut changed = bytes;
            let at = flip.0.index(length);
            changed[at] ^= flip.1;
            fs::write(&whole, &changed).unwrap();
            let expected = if at < HEADER { Broken::Header } else { Broken::Request(count) };
            prop_assert_eq!(read(&whole).unwrap(), Err(expected));
        }
    }

    #[test]
    fn a_header_that_claims_more_than_there_can_be_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("whole");
        let count = Count { spans: 3, events: 14 };
        let header = Header { length: u64::MAX, ..Header::of(b"", count) };
        fs::write(&file, header.to_bytes()).unwrap();
        assert_eq!(inspect(&file).unwrap().unwrap_err(), Broken::Request(count));
    }
}
