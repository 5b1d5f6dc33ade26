//! The spool: requests on disk that could not be sent, until they are.
//!
//! ```text
//! DIRECTORY/0/lock                 held by the process whose place it is
//! DIRECTORY/0/00000007.request     one OTLP request
//! DIRECTORY/0/00000008.part        was being written when its process ended
//! DIRECTORY/0/00000003.corrupt     set aside: cut short or changed
//! ```
//!
//! A request is a file of its own: it appears whole, and goes when a receiver has taken it.

mod frame;
#[cfg(test)]
mod fuzz;
mod place;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::export::batch::{Loss, Refused, deduct};
use crate::export::spool::frame::{Broken, HEADER};
use crate::export::spool::place::Place;
use crate::stats::{Count, Reason, Stats};

/// Where a spool is, and how much it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) directory: PathBuf,
    pub(crate) max_bytes: u64,
}

pub(crate) const DEFAULT_MAX_BYTES: u64 = 256 << 20;

pub(crate) struct Spool {
    place: Place,
    max_bytes: u64,
    /// Of all files, broken ones included.
    bytes: u64,
    next: u64,
    frames: VecDeque<Frame>,
    /// The request that was tried last could not be read; told once.
    is_unread: bool,
    stats: Arc<Stats>,
    /// To be told by the export thread.
    pub(crate) warnings: Vec<String>,
    pub(crate) lost: Vec<(u64, Loss)>,
}

#[derive(Debug)]
struct Frame {
    number: u64,
    bytes: u64,
    count: Count,
    standing: Standing,
}

/// How a request stands to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Another exporter has not settled its batch yet.
    Open,
    /// It is what `spooled` counts.
    Spooled,
    /// Its spans are counted as lost, by another exporter's failure.
    Lost,
}

impl Spool {
    /// Takes a place, and over what processes that are gone have left.
    pub(crate) fn open(settings: &Settings, stats: Arc<Stats>) -> io::Result<Self> {
        let place = Place::take(&settings.directory)?;
        let next = ["request", "part", "corrupt"].into_iter().flat_map(|kind| place.files(kind).unwrap_or_default());
        let next = next.filter_map(|path| path.file_stem()?.to_str()?.parse::<u64>().ok()).max().unwrap_or(0) + 1;
        let mut spool = Self {
            place,
            max_bytes: settings.max_bytes,
            bytes: 0,
            next,
            frames: VecDeque::new(),
            is_unread: false,
            stats,
            warnings: Vec::new(),
            lost: Vec::new(),
        };
        for deserted in Place::deserted(&settings.directory) {
            for kind in ["request", "part"] {
                for path in deserted.files(kind)? {
                    let number = spool.number();
                    fs::rename(path, spool.path(number, kind))?;
                }
            }
        }
        spool.scan()?;
        Ok(spool)
    }

    fn scan(&mut self) -> io::Result<()> {
        for path in self.place.files("corrupt")? {
            self.bytes += size(&path);
        }
        for path in self.place.files("part")? {
            match frame::inspect(&path) {
                Ok(Ok(header)) => self.found_broken(&path, &Broken::Request(header.count)),
                Ok(Err(broken)) => self.found_broken(&path, &broken),
                Err(error) => self.found_unread(&path, &error),
            }
        }
        for path in self.place.files("request")? {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            match (frame::inspect(&path), number) {
                (Err(error), _) => self.found_unread(&path, &error),
                (Ok(Ok(header)), Some(number)) => {
                    let bytes = size(&path);
                    self.bytes += bytes;
                    self.stats.recovered(header.count);
                    self.stats.spooled(header.count);
                    let standing = Standing::Spooled;
                    self.frames.push_back(Frame { number, bytes, count: header.count, standing });
                }
                (Ok(Ok(_)), None) => self.found_broken(&path, &Broken::Header),
                (Ok(Err(broken)), _) => self.found_broken(&path, &broken),
            }
        }
        let spans: u64 = self.frames.iter().map(|frame| frame.count.spans).sum();
        if spans > 0 {
            let path = self.place.path.display();
            self.warnings.push(format!("{spans} spans of an earlier process are in the spool {path}, to be sent"));
        }
        Ok(())
    }

    /// Counts a broken file that an earlier process has left.
    fn found_broken(&mut self, path: &Path, broken: &Broken) {
        match broken {
            Broken::Request(count) => {
                self.stats.recovered(*count);
                self.stats.count(Reason::SpoolCorrupt, *count);
            }
            Broken::Header => self.stats.span(Reason::SpoolUnreadable),
        }
        self.bytes += size(path);
        self.set_aside(path, broken);
    }

    /// Tells of a file that an earlier process has left, and that this one leaves to the next.
    fn found_unread(&mut self, path: &Path, error: &io::Error) {
        self.stats.span(Reason::SpoolUnreadable);
        self.bytes += size(path);
        let path = path.display();
        self.warnings.push(format!("a spooled request cannot be read, and is left to the next start: {path}: {error}"));
    }

    fn set_aside(&mut self, path: &Path, broken: &Broken) {
        let aside = path.with_extension("corrupt");
        let what = match broken {
            Broken::Request(count) => format!("{} spans", count.spans),
            Broken::Header => "an unknown number of spans".into(),
        };
        let fate = match fs::rename(path, &aside) {
            Ok(()) => format!("it was set aside as {}", aside.display()),
            Err(error) => format!("it could not be set aside: {error}"),
        };
        self.warnings.push(format!("a spooled request is broken, {what} are lost: {}; {fate}", path.display()));
    }

    /// Keeps an encoded batch. Its standing is open until [`Self::settle`].
    ///
    /// # Errors
    /// There is no room for it, or the disk refused.
    pub(crate) fn push(&mut self, request: &[u8], count: Count) -> io::Result<u64> {
        if self.bytes + (HEADER + request.len()) as u64 > self.max_bytes {
            let full = format!("the spool {} is full ({} bytes)", self.place.path.display(), self.max_bytes);
            return Err(io::Error::new(io::ErrorKind::StorageFull, full));
        }
        let number = self.number();
        let bytes = frame::write(&self.path(number, "part"), &self.path(number, "request"), request, count)?;
        self.bytes += bytes;
        self.frames.push_back(Frame { number, bytes, count, standing: Standing::Open });
        Ok(number)
    }

    /// Every exporter has settled the request's batch: `kept` of it was lost nowhere.
    pub(crate) fn settle(&mut self, number: u64, kept: Option<Count>) {
        let Some(frame) = self.frames.iter_mut().find(|frame| frame.number == number) else { return };
        match kept {
            Some(kept) => {
                frame.count = kept;
                frame.standing = Standing::Spooled;
                self.stats.spooled(kept);
            }
            None => frame.standing = Standing::Lost,
        }
    }

    /// The oldest request that may be sent.
    pub(crate) fn front(&mut self) -> Option<(u64, Vec<u8>)> {
        loop {
            let frame = self.frames.front().filter(|frame| frame.standing != Standing::Open)?;
            let (number, path) = (frame.number, self.path(frame.number, "request"));
            let read = frame::read(&path);
            if let Err(error) = &read
                && !self.is_unread
            {
                let path = path.display();
                self.warnings
                    .push(format!("a spooled request cannot be read, and waits until it can: {path}: {error}"));
            }
            self.is_unread = read.is_err();
            if self.is_unread {
                // The others do not wait for it.
                self.frames.rotate_left(1);
            }
            match read.ok()? {
                Ok(request) => return Some((number, request)),
                Err(broken) => {
                    let frame = self.frames.pop_front().expect("there is a front");
                    if frame.standing == Standing::Spooled {
                        self.stats.unspooled(frame.count);
                        self.stats.count(Reason::SpoolCorrupt, frame.count);
                    }
                    self.set_aside(&path, &broken);
                    self.bytes = self.bytes - frame.bytes + size(&path.with_extension("corrupt"));
                }
            }
        }
    }

    /// A receiver took the request, but for what it refused.
    pub(crate) fn sent(&mut self, number: u64, refused: Vec<Refused>) {
        let Some(frame) = self.remove(number) else { return };
        self.stats.count(Reason::SentFromSpool, Count { events: 0, ..frame.count });
        if frame.standing == Standing::Spooled {
            self.stats.unspooled(frame.count);
            let (kept, lost) = deduct(frame.count, refused, &self.stats);
            self.stats.exported(kept);
            self.lost.extend(lost);
        }
    }

    /// No receiver will ever take it.
    pub(crate) fn refused(&mut self, number: u64, loss: Loss) {
        let Some(frame) = self.remove(number) else { return };
        if frame.standing == Standing::Spooled {
            self.stats.unspooled(frame.count);
            self.stats.count(loss.reason, frame.count);
            self.lost.push((frame.count.spans, loss));
        }
    }

    fn remove(&mut self, number: u64) -> Option<Frame> {
        let at = self.frames.iter().position(|frame| frame.number == number)?;
        let frame = self.frames.remove(at)?;
        let path = self.path(number, "request");
        match fs::remove_file(&path) {
            Ok(()) => self.bytes -= frame.bytes,
            Err(error) => {
                let path = path.display();
                self.warnings.push(format!("a spooled request was sent and will be again: {path} cannot go: {error}"));
            }
        }
        Some(frame)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.place.path.join(format!("{number:08}.{extension}"))
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Census;

    #[test]
    fn a_request_that_the_disk_does_not_give_waits_until_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { directory: directory.path().to_owned(), max_bytes: DEFAULT_MAX_BYTES };
        let stats = Arc::new(Stats::new());
        let open = || Spool::open(&settings, stats.clone()).unwrap();
        let count = Count { spans: 2, events: 8 };
        let mut spool = open();
        let number = spool.push(b"spans", count).unwrap();
        spool.settle(number, Some(count));

        // A directory can be opened, and not be read.
        let (path, away) = (spool.path(number, "request"), directory.path().join("away"));
        fs::rename(&path, &away).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(spool.front().is_none() && spool.front().is_none());
        assert_eq!(
            (
                spool.frames.len(),
                spool.warnings.len(),
                stats.snapshot(Census::default(), Count::default()).spans.spooled
            ),
            (1, 1, 2)
        );
        drop(spool);
        let spool = open();
        let snapshot = stats.snapshot(Census::default(), Count::default());
        assert_eq!((spool.frames.len(), spool.warnings.len(), snapshot.noted[&Reason::SpoolUnreadable]), (0, 1, 1));
        drop(spool);

        fs::remove_dir(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        assert_eq!(open().front(), Some((number, b"spans".to_vec())));
    }
}
