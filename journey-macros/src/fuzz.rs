//! What must hold whatever is written between the parentheses of a macro.

use proc_macro2::TokenStream;

use crate::{expand_event, expand_fn, expand_record, expand_span};

/// Expands `text` by every macro: as its arguments, and for the attribute also before an item, which is behind the first line
/// feed.
///
/// # Panics
/// A macro panics, or what it makes is not what may stand in its place.
pub(crate) fn check(text: &str) {
    let (arguments, item) =
        text.split_once('\n').unwrap_or((text, "async fn handle(id: &str) -> Result<u8, String> { Ok(1) }"));
    // Only what the compiler has cut into tokens comes to a macro.
    let (Ok(arguments), Ok(item)) = (arguments.parse::<TokenStream>(), item.parse::<TokenStream>()) else { return };
    for expand in [expand_event::expand, expand_record::expand, expand_span::expand] {
        let expanded = expand(arguments.clone());
        let text = expanded.to_string();
        syn::parse2::<syn::Expr>(expanded).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    let expanded = expand_fn::expand(arguments, item.clone());
    // What was no item before is none after; everything else still is one.
    if syn::parse2::<syn::ItemFn>(item).is_ok() {
        let text = expanded.to_string();
        syn::parse2::<syn::File>(expanded).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
}

#[cfg(test)]
#[path = "../../fuzz/checks/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzer_begins_with_and_what_it_found() {
        super::seeds::each("macros", |seed| super::check(std::str::from_utf8(seed).expect("text")));
    }
}
