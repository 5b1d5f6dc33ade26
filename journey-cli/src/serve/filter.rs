//! Which journeys the page shows.

use serde::Deserialize;

use super::store::Stored;

/// The filter, as it stands in the page's address.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    /// Part of a request or trace id.
    pub(super) q: String,
    pub(super) model: String,
    pub(super) status: String,
    /// Least time to first token, milliseconds; text, because an empty field is sent as such.
    pub(super) ttft: String,
    pub(super) preempted: String,
    pub(super) findings: String,
    pub(super) page: usize,
}

impl Filter {
    /// Whether a journey passes.
    pub(super) fn takes(&self, stored: &Stored) -> bool {
        let journey = &stored.journey;
        let needle = self.q.trim();
        let contains = |text: &str| text.to_lowercase().contains(&needle.to_lowercase());
        (needle.is_empty()
            || contains(journey.request_id())
            || contains(&journey.id.trace_id.to_string())
            || journey.sequences.iter().any(|sequence| contains(&sequence.request_id)))
            && (self.model.is_empty() || journey.request.as_ref().is_some_and(|request| *request.model == *self.model))
            && (self.status.is_empty()
                || self.status == journey.status()
                || self.status == "aborted" && is_aborted(stored))
            && self
                .least_ttft()
                .is_none_or(|least| journey.time_to_first_token().is_some_and(|ttft| ttft as f64 >= least))
            && (self.preempted.is_empty() || journey.preemptions() > 0)
            && (self.findings.is_empty() || stored.finding_count() > 0)
    }

    /// Nanoseconds; what is no number filters nothing.
    fn least_ttft(&self) -> Option<f64> {
        self.ttft.trim().parse::<f64>().ok().filter(|ms| ms.is_finite() && *ms > 0.0).map(|ms| ms * 1e6)
    }

    /// The same filter as a query string, for another page of results.
    pub(super) fn query(&self, page: usize) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("q", &self.q),
            ("model", &self.model),
            ("status", &self.status),
            ("ttft", &self.ttft),
            ("preempted", &self.preempted),
            ("findings", &self.findings),
        ] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        if page > 0 {
            query.append_pair("page", &page.to_string());
        }
        query.finish()
    }
}

fn is_aborted(stored: &Stored) -> bool {
    stored.journey.request.as_ref().is_some_and(|request| matches!(request.end, crate::journey::End::Aborted(_)))
}
