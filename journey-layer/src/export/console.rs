//! Journeys on a terminal.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use journey_schema::SpanName;
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::SpanData;

use crate::export::batch::Spans;
use crate::export::exporter::{Destination, Exporter, unique};
use crate::export::lane::{Accepted, Failure, Outcome};
use crate::export::local::Local;
use crate::export::tree::{Style, render};

/// Journeys as trees, for people. Made by [`Exporter::console`].
///
/// A `llm_request` is held for half a second after its end, so that a `llm_core` that ends a little later is printed
/// under it. What belongs to no `llm_request` that this process exports is printed in the end.
#[derive(Default)]
pub struct Console {
    writer: Option<Box<dyn Write + Send>>,
    color: Option<bool>,
}

impl Console {
    /// Prints there, and not to standard output.
    pub fn writer(mut self, writer: impl Write + Send + 'static) -> Self {
        self.writer = Some(Box::new(writer));
        self
    }

    /// Whether to use colours. Without this: on a terminal, unless `NO_COLOR` is set.
    pub fn color(mut self, color: bool) -> Self {
        self.color = Some(color);
        self
    }
}

impl From<Console> for Exporter {
    fn from(console: Console) -> Self {
        let label = if console.writer.is_some() { unique("console") } else { "console".to_owned() };
        let destination = Destination::local(label, move |_| {
            let to_terminal = console.writer.is_none() && io::stdout().is_terminal();
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let color = console.color.unwrap_or(to_terminal && !no_color);
            let out = console.writer.unwrap_or_else(|| Box::new(io::stdout()));
            Ok(ConsoleExporter::new(out, Style { color }))
        });
        destination.prompt().into()
    }
}

const HOLD: Duration = Duration::from_millis(500);
/// How long a span with a remote parent waits for it. The parent may be this process's (a carrier was used within it)
/// or another's, which never comes.
const REMOTE_HOLD: Duration = Duration::from_secs(3);
/// Spans that wait for their parent at most.
const MAX_WAITING: usize = 4096;
/// Printed spans whose late children are still recognised.
const MAX_PRINTED: usize = 1024;

struct ConsoleExporter {
    out: Box<dyn Write + Send>,
    style: Style,
    /// Printed when their time has come, oldest first.
    held: VecDeque<(Instant, SpanData)>,
    /// Spans that ended before their parent, by the parent's id.
    waiting: HashMap<SpanId, Vec<SpanData>>,
    /// The keys of `waiting` with the time since when, oldest first.
    order: VecDeque<(Instant, SpanId)>,
    /// A remote parent has turned out to be this process's: then they all may.
    remote_parents_come: bool,
    num_waiting: usize,
    printed: VecDeque<SpanId>,
    text: String,
}

impl ConsoleExporter {
    fn new(out: Box<dyn Write + Send>, style: Style) -> Self {
        Self {
            out,
            style,
            held: VecDeque::new(),
            waiting: HashMap::new(),
            order: VecDeque::new(),
            remote_parents_come: false,
            num_waiting: 0,
            printed: VecDeque::new(),
            text: String::new(),
        }
    }

    fn take(&mut self, span: SpanData, now: Instant) {
        let parent = span.parent_span_id;
        let is_request = span.name == SpanName::LlmRequest.name();
        let comes = parent != SpanId::INVALID && !self.printed.contains(&parent);
        if is_request {
            self.held.push_back((now + HOLD, span));
            if self.held.len() > MAX_WAITING {
                let (_, oldest) = self.held.pop_front().expect("there is a front");
                self.print(&oldest);
            }
        } else if comes {
            let siblings = self.waiting.entry(parent).or_default();
            if siblings.is_empty() {
                self.order.push_back((now, parent));
            }
            siblings.push(span);
            self.num_waiting += 1;
            while self.num_waiting > MAX_WAITING {
                self.print_orphans_of_oldest();
            }
        } else {
            self.print(&span);
        }
    }

    fn print_due(&mut self, now: Option<Instant>) {
        while let Some((due, _)) = self.held.front()
            && now.is_none_or(|now| *due <= now)
        {
            let (_, span) = self.held.pop_front().expect("there is a front");
            self.print(&span);
        }
        while let Some((since, parent)) = self.order.front()
            && now.is_some_and(|now| now.duration_since(*since) >= REMOTE_HOLD)
            && !self.remote_parents_come
            && self.waiting[parent].iter().all(|span| span.parent_span_is_remote)
        {
            self.print_orphans_of_oldest();
        }
    }

    fn print(&mut self, root: &SpanData) {
        let mut family = HashMap::new();
        self.collect(root.span_context.span_id(), &mut family);
        render(&mut self.text, root, &family, self.style);
    }

    /// Moves everything below `parent` into `family`.
    fn collect(&mut self, parent: SpanId, family: &mut HashMap<SpanId, Vec<SpanData>>) {
        self.printed.push_back(parent);
        if self.printed.len() > MAX_PRINTED {
            self.printed.pop_front();
        }
        let Some(mut children) = self.waiting.remove(&parent) else { return };
        self.remote_parents_come |= children.iter().any(|child| child.parent_span_is_remote);
        self.order.retain(|(_, key)| *key != parent);
        self.num_waiting -= children.len();
        children.sort_by_key(|child| child.start_time);
        for child in &children {
            self.collect(child.span_context.span_id(), family);
        }
        family.insert(parent, children);
    }

    fn print_orphans_of_oldest(&mut self) {
        let Some((_, parent)) = self.order.pop_front() else { return };
        for orphan in self.waiting.remove(&parent).unwrap_or_default() {
            self.num_waiting -= 1;
            self.print(&orphan);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.text.is_empty() {
            return Ok(());
        }
        let result = self.out.write_all(self.text.as_bytes()).and_then(|()| self.out.flush());
        self.text.clear();
        result
    }
}

impl Local for ConsoleExporter {
    fn export(&mut self, spans: Spans) -> Outcome {
        let now = Instant::now();
        spans.for_each(|span| self.take(span, now));
        self.print_due(Some(now));
        self.write().map(|()| Accepted::default()).map_err(|error| Failure::permanent(error.to_string()))
    }

    fn flush(&mut self) -> Result<(), String> {
        self.print_due(None);
        self.write().map_err(|error| error.to_string())
    }

    fn period(&self) -> Option<Duration> {
        Some(HOLD / 2)
    }

    fn tick(&mut self, now: Instant) {
        self.print_due(Some(now));
        // Said by the next export, if it lasts.
        let _ = self.write();
    }

    fn shutdown(&mut self, _: Duration) {
        self.print_due(None);
        while !self.order.is_empty() {
            self.print_orphans_of_oldest();
        }
        let _ = self.write();
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceId;

    use super::*;
    use crate::export::convert::{Conversion, Semconv};
    use crate::record::{ParentSpan, SpanRecord};

    fn span(name: SpanName, id: u64, remote_parent: Option<u64>) -> SpanData {
        let mut record = SpanRecord::new(name, TraceId::from(1), SpanId::from(id), 0, 0);
        record.parent = remote_parent.map(|id| ParentSpan { span_id: SpanId::from(id), is_remote: true });
        Conversion::new(Semconv::default()).span_data(&record)
    }

    #[test]
    fn a_core_whose_request_is_another_process_s_is_printed_alone_until_one_turns_out_to_be_ours() {
        let mut console = ConsoleExporter::new(Box::new(io::sink()), Style { color: false });
        let start = Instant::now();
        let printed = |console: &mut ConsoleExporter, after: Duration| {
            console.text.clear();
            console.print_due(Some(start + after));
            console.text.lines().filter(|line| line.contains("llm_")).count()
        };
        console.take(span(SpanName::LlmCore, 2, Some(1)), start);
        assert_eq!(printed(&mut console, HOLD), 0, "its request may still come");
        assert_eq!(printed(&mut console, REMOTE_HOLD), 1);

        console.take(span(SpanName::LlmCore, 4, Some(3)), start);
        console.take(span(SpanName::LlmRequest, 3, None), start);
        assert_eq!(printed(&mut console, HOLD), 2, "a tree");
        console.take(span(SpanName::LlmCore, 6, Some(5)), start);
        assert_eq!(printed(&mut console, 10 * REMOTE_HOLD), 0, "from now on they are waited for");
        console.take(span(SpanName::LlmRequest, 5, None), start);
        assert_eq!(printed(&mut console, HOLD), 2);
    }

    #[test]
    fn requests_that_wait_for_their_sequences_are_bounded() {
        let mut console = ConsoleExporter::new(Box::new(io::sink()), Style { color: false });
        (0..MAX_WAITING as u64 + 10)
            .for_each(|id| console.take(span(SpanName::LlmRequest, id + 1, None), Instant::now()));
        assert_eq!((console.held.len(), console.text.matches("llm_request").count()), (MAX_WAITING, 10));
    }

    #[test]
    fn what_waits_for_its_parent_is_bounded() {
        let mut console = ConsoleExporter::new(Box::new(io::sink()), Style { color: false });
        for id in 0..MAX_WAITING as u64 + 10 {
            console.take(span(SpanName::LlmCore, 2 * id + 2, Some(2 * id + 1)), Instant::now());
        }
        assert_eq!((console.num_waiting, console.order.len()), (MAX_WAITING, MAX_WAITING));
        assert_eq!(console.text.matches("llm_core").count(), 10, "the oldest went first");
    }
}
