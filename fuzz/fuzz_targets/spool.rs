//! The files that read a spool are the layer's own affair: they are compiled here once more.
#![no_main]

mod stats {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Count {
        pub(crate) spans: u64,
        pub(crate) events: u64,
    }
}

#[path = "../../journey-layer/src/export/spool"]
mod spool {
    mod frame;
    mod fuzz;

    pub(super) fn file(bytes: &[u8]) {
        fuzz::check(bytes);
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| spool::file(data));
