//! Where trace headers can be read from.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

/// A source of W3C trace headers: what `headers = ..` and `carrier = ..` accept.
///
/// Names are asked for in lower case. Values are bytes because HTTP headers are: what is not valid W3C Trace
/// Context is counted and ignored by the layer, never a panic.
pub trait Headers {
    /// Calls `each` with every value of the header `name`, in order.
    fn for_each(&self, name: &str, each: &mut dyn FnMut(&[u8]));
}

impl<S: BuildHasher> Headers for HashMap<String, String, S> {
    fn for_each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        if let Some(value) = self.get(name) {
            each(value.as_bytes());
        }
    }
}

impl Headers for BTreeMap<String, String> {
    fn for_each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        if let Some(value) = self.get(name) {
            each(value.as_bytes());
        }
    }
}

#[cfg(feature = "http")]
impl Headers for http::HeaderMap {
    fn for_each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for value in self.get_all(name) {
            each(value.as_bytes());
        }
    }
}

impl<H: Headers + ?Sized> Headers for &H {
    fn for_each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        (**self).for_each(name, each);
    }
}

impl<H: Headers> Headers for Option<H> {
    fn for_each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        if let Some(headers) = self {
            headers.for_each(name, each);
        }
    }
}
