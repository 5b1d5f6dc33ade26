//! What must hold whatever is found in a spool.

use std::fs;
use std::path::Path;

use super::frame::{Broken, HEADER, inspect, read, write};

/// Reads `data` as a spooled request: as it is, with a header that has its checksum, and with one that tells the truth.
///
/// # Panics
/// Something does not hold.
pub(crate) fn check(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let _ = judge(directory.path(), data);
    if data.len() >= HEADER {
        let mut file = data.to_vec();
        seal(&mut file);
        assert_ne!(judge(directory.path(), &file), Err(Broken::Header), "its header has its checksum");

        let (header, request) = file.split_at_mut(HEADER);
        header[16..24].copy_from_slice(&(request.len() as u64).to_le_bytes());
        header[24..28].copy_from_slice(&crc32fast::hash(request).to_le_bytes());
        seal(&mut file);
        assert_eq!(judge(directory.path(), &file).as_deref(), Ok(&data[HEADER..]), "all that it says is so");
    }
}

/// Gives a header the magic and the checksum of its own.
fn seal(file: &mut [u8]) {
    file[..8].copy_from_slice(b"JRNSPL\0\x01");
    let own = crc32fast::hash(&file[..28]);
    file[28..HEADER].copy_from_slice(&own.to_le_bytes());
}

/// Reads `data`, and holds what it is taken for against what would have been written.
fn judge(directory: &Path, data: &[u8]) -> Result<Vec<u8>, Broken> {
    let [found, part, again] = ["found", "part", "again"].map(|name| directory.join(name));
    fs::write(&found, data).expect("a file");
    let (header, request) = (inspect(&found).expect("a file"), read(&found).expect("a file"));
    match (&header, &request) {
        (Ok(header), Ok(request)) => {
            let length = write(&part, &again, request, header.count).expect("a file");
            assert_eq!(fs::read(&again).expect("a file"), data, "what is taken for whole is what is written");
            assert_eq!(length, data.len() as u64);
        }
        // The header alone does not show what was changed behind it.
        (Ok(header), Err(broken)) => assert_eq!(*broken, Broken::Request(header.count)),
        (Err(header), Err(broken)) => assert_eq!(header, broken),
        (Err(_), Ok(_)) => panic!("read although its header is broken"),
    }
    request
}

#[cfg(test)]
#[path = "../../../../fuzz/checks/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    #[test]
    fn every_seed_of_the_spool_holds() {
        super::seeds::each("spool", super::check);
    }
}
