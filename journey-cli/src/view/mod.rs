//! What the report's page and the live page have in common: plots, waterfalls and their look.
//!
//! Everything is server-rendered. Drawings are SVG stretched to the width at hand, words are HTML beside them, so that text is never
//! stretched and a phone shows the same. Geometry stands in attributes, never in `style`, for the pages forbid inline styles.

mod plot;
mod waterfall;

use maud::{Markup, html};

pub(crate) use plot::{distribution, timeline};
pub(crate) use waterfall::{mini_bar, parts_table, waterfall};

use crate::journey::Part;

/// The style sheet of both pages.
pub(crate) const STYLE: &str = include_str!("style.css");

/// Class of a part's colour.
pub(crate) const fn class(part: Part) -> &'static str {
    match part {
        Part::Handoff => "handoff",
        Part::Queue => "queue",
        Part::Prefill => "prefill",
        Part::Preempted => "preempted",
        Part::Decode => "decode",
        Part::Response => "response",
        Part::Untraced => "untraced",
    }
}

/// The colours with their names.
pub(crate) fn legend() -> Markup {
    html! {
        ul.legend aria-label="colours" {
            @for part in Part::ALL {
                li title=(part.meaning()) {
                    svg viewBox="0 0 10 10" aria-hidden="true" { rect class=(class(part)) width="10" height="10" {} }
                    (part.name())
                }
            }
        }
    }
}
