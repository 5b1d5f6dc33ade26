//! Where a spool lies: a place of its own for each process, under a lock that ends with the process.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Processes that may share one directory.
const MAX_PLACES: usize = 64;

/// A directory that is this process's for as long as it lives.
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Place {
    /// Takes the first free place under `directory`.
    pub(crate) fn take(directory: &Path) -> io::Result<Self> {
        for number in 0..MAX_PLACES {
            if let Some(place) = Self::lock(directory.join(number.to_string()))? {
                #[cfg(unix)]
                refuse_strangers(directory)?;
                return Ok(place);
            }
        }
        Err(io::Error::other(format!("its {MAX_PLACES} places are all in use")))
    }

    /// The places of processes that are gone.
    pub(crate) fn deserted(directory: &Path) -> impl Iterator<Item = Self> {
        let others = (0..MAX_PLACES).map(|number| directory.join(number.to_string())).filter(|path| path.is_dir());
        others.filter_map(|path| Self::lock(path).ok().flatten()).collect::<Vec<_>>().into_iter()
    }

    fn lock(path: PathBuf) -> io::Result<Option<Self>> {
        let mut directories = DirBuilder::new();
        directories.recursive(true);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        // Journeys carry request ids and error texts: for the owner's eyes.
        #[cfg(unix)]
        {
            std::os::unix::fs::DirBuilderExt::mode(&mut directories, 0o700);
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        directories.create(&path)?;
        #[cfg(unix)]
        refuse_others(&path)?;
        let lock = options.open(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Its files with this extension, by name.
    pub(crate) fn files(&self, extension: &str) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|its| its == extension) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

/// Whoever owns the directory around a place can put another in its stead.
#[cfg(unix)]
fn refuse_strangers(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let owner = fs::metadata(directory)?.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("{} belongs to another user; choose another", directory.display())));
    }
    Ok(())
}

/// Spans from a directory that others can write to would go out as this process's own.
#[cfg(unix)]
fn refuse_others(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    // Of the directory, and not of what somebody's link points to.
    let its = fs::symlink_metadata(path)?;
    let ours = rustix::process::geteuid().as_raw();
    if !its.is_dir() || its.uid() != ours || its.mode() & 0o022 != 0 {
        let path = path.display();
        return Err(io::Error::other(format!(
            "{path} is not a directory of this user that nobody else can write to; remove it, or choose another"
        )));
    }
    Ok(())
}
