//! Deep links into the tracing backend that a team already has.

use std::fmt::Write;
use std::str::FromStr;

use crate::model::SpanRef;

/// A URL with `{trace_id}`, and perhaps `{span_id}`, in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTemplate(String);

/// Why a template makes no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No trace id in it.
    #[error(
        "`{0}` has no {{trace_id}}: write the URL of a trace in your backend with {{trace_id}} where the id stands"
    )]
    NoTraceId(String),
    /// Not a web address.
    #[error("`{0}` is no http:// or https:// URL")]
    NotHttp(String),
}

impl FromStr for LinkTemplate {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        // Any other scheme in a page's link can run code: `javascript:`.
        if !(text.starts_with("https://") || text.starts_with("http://")) {
            return Err(LinkError::NotHttp(text.to_owned()));
        }
        if !text.contains("{trace_id}") {
            return Err(LinkError::NoTraceId(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl LinkTemplate {
    /// The link to a span. Ids are hex, so nothing needs encoding.
    pub fn link(&self, to: SpanRef) -> String {
        let mut id = String::with_capacity(32);
        let _ = write!(id, "{}", to.trace_id);
        self.0.replace("{trace_id}", &id).replace("{span_id}", &to.span_id.to_string())
    }
}
