//! The attribute on functions that are no futures.
#![deny(warnings)]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

use std::fmt::{Debug, Display};

use journey_layer::journey_span;

/// Documented, and still so.
#[must_use]
#[inline]
#[journey_span(scope = "vllm.api", request_id = id)]
pub fn documented(id: &str) -> usize {
    #![allow(clippy::len_zero)]
    id.len()
}

#[journey_span(scope = "vllm.api", request_id = %id)]
fn generic<'a, T, const N: usize>(id: T, all: &'a [u8; N]) -> (T, &'a u8)
where
    T: Display + Clone,
{
    let first = &all[0];
    (id, first)
}

#[journey_span(scope = "vllm.api")]
fn returns_impl<'a>(items: &'a [u32], by: impl Fn(u32) -> u32 + 'a) -> impl Iterator<Item = u32> + Debug + 'a {
    if items.is_empty() {
        return vec![].into_iter();
    }
    items.iter().map(|item| by(*item)).collect::<Vec<_>>().into_iter()
}

#[journey_span(scope = "vllm.api")]
fn patterns((a, mut b): (u32, u32), [c, ..]: [u32; 3], _: String) -> u32 {
    b += 1;
    a + b + c
}

#[journey_span(scope = "vllm.api")]
unsafe fn reads(pointer: *const u32) -> u32 {
    // SAFETY: the caller gives a valid pointer.
    unsafe { *pointer }
}

#[journey_span(scope = "vllm.api")]
extern "C" fn foreign(x: u32) -> u32 {
    return x + 1;
}

#[journey_span(scope = "vllm.api")]
fn never() -> ! {
    std::process::exit(0)
}

#[journey_span(scope = "vllm.api")]
fn dynamic(yes: bool) -> Box<dyn Debug> {
    if yes { Box::new(1) } else { Box::new("a") }
}

#[journey_span(scope = "vllm.api")]
pub(crate) fn nothing() {}

fn main() {
    assert_eq!(documented("abc"), 3);
    assert_eq!(generic("x", &[1, 2]), ("x", &1));
    assert_eq!(returns_impl(&[1, 2], |x| x + 1).sum::<u32>(), 5);
    assert_eq!(patterns((1, 2), [3, 4, 5], String::new()), 7);
    // SAFETY: a reference is a valid pointer.
    assert_eq!(unsafe { reads(&7) }, 7);
    assert_eq!(foreign(1), 2);
    assert_eq!(format!("{:?}", dynamic(true)), "1");
    nothing();
    #[journey_span(scope = "vllm.scheduler")]
    fn inner() {}
    inner();
    never()
}
