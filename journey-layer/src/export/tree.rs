//! One journey as text.

use std::collections::HashMap;
use std::fmt::{self, Display, Write};
use std::time::SystemTime;

use journey_schema::Attr;
use opentelemetry::trace::{Event, SpanId, Status};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

/// How text is set off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) color: bool,
}

impl Style {
    fn paint<T: Display>(self, code: &'static str, text: T) -> Painted<T> {
        Painted { code: self.color.then_some(code), text }
    }
}

struct Painted<T> {
    code: Option<&'static str>,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "\x1b[{code}m{}\x1b[0m", self.text),
            None => self.text.fmt(f),
        }
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";

/// Appends `root` with everything that `family` (by parent) has below it. Times are from the root's start.
pub(crate) fn render(out: &mut String, root: &SpanData, family: &HashMap<SpanId, Vec<SpanData>>, style: Style) {
    let mut tree = Tree { out, origin: root.start_time, family, style };
    tree.span(root, "", "").expect("writing to a string");
}

struct Tree<'a> {
    out: &'a mut String,
    origin: SystemTime,
    family: &'a HashMap<SpanId, Vec<SpanData>>,
    style: Style,
}

impl Tree<'_> {
    /// Writes `span`: its headline behind `head`, all its other lines behind `margin`.
    fn span(&mut self, span: &SpanData, head: &str, margin: &str) -> fmt::Result {
        let style = self.style;
        let name = style.paint(BOLD, Clean(&span.name));
        write!(self.out, "{head}{name}")?;
        if let Some(id) = text_of(&span.attributes, Attr::RequestId.key()) {
            write!(self.out, " {}", Clean(id))?;
        }
        let duration = span.end_time.duration_since(span.start_time).unwrap_or_default();
        write!(self.out, "  {}", millis(duration.as_secs_f64()))?;
        if head.is_empty() {
            let trace = span.span_context.trace_id();
            write!(self.out, "  {}", style.paint(DIM, format_args!("trace {trace}")))?;
            if span.parent_span_id != SpanId::INVALID {
                write!(self.out, " {}", style.paint(DIM, format_args!("parent {}", span.parent_span_id)))?;
            }
        }
        self.out.push('\n');

        let children = self.family.get(&span.span_context.span_id()).map_or(&[][..], Vec::as_slice);
        let inner = format!("{margin}{}", if children.is_empty() { "   " } else { "│  " });
        let shown = span.attributes.iter().filter(|pair| pair.key.as_str() != Attr::RequestId.key());
        let mut shown: Vec<String> = shown.map(shown_pair).collect();
        // The first line of what the request asked for and got, the second of how long it took.
        let latencies =
            shown.split_off(shown.iter().position(|pair| pair.starts_with("latency.")).unwrap_or(shown.len()));
        for line in [shown, latencies].iter().filter(|line| !line.is_empty()) {
            writeln!(self.out, "{inner}{}", style.paint(DIM, line.join("  ")))?;
        }
        for event in span.events.iter() {
            self.event(event, &inner)?;
        }
        if span.events.dropped_count > 0 {
            writeln!(self.out, "{inner}{} events beyond the limit were dropped", span.events.dropped_count)?;
        }
        if let Status::Error { description } = &span.status {
            writeln!(self.out, "{inner}{}", style.paint(RED, format_args!("ERROR {}", Clean(description))))?;
        }
        for (index, child) in children.iter().enumerate() {
            let last = index + 1 == children.len();
            let head = format!("{margin}{}", if last { "└─ " } else { "├─ " });
            self.span(child, &head, &format!("{margin}{}", if last { "   " } else { "│  " }))?;
        }
        Ok(())
    }

    fn event(&mut self, event: &Event, inner: &str) -> fmt::Result {
        let at = match event.timestamp.duration_since(self.origin) {
            Ok(after) => after.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        };
        let failed = event.name == journey_schema::Event::Aborted.wire_name();
        let code = if failed { RED } else { BOLD };
        write!(self.out, "{inner}{:>12}  {}", millis(at), self.style.paint(code, Clean(&event.name)))?;
        for text in shown_of_event(&event.attributes) {
            write!(self.out, "  {text}")?;
        }
        self.out.push('\n');
        Ok(())
    }
}

fn millis(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

fn text_of<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    attributes.iter().find_map(|pair| match &pair.value {
        Value::String(text) if pair.key.as_str() == key => Some(text.as_str()),
        _ => None,
    })
}

/// What a reader of an event wants to know: readings of the clock are in its offset already.
fn shown_of_event(attributes: &[KeyValue]) -> Vec<String> {
    let number = |attr: Attr| {
        attributes.iter().find_map(|pair| match pair.value {
            Value::I64(value) if pair.key.as_str() == attr.key() => Some(value),
            _ => None,
        })
    };
    let progress = |attr: Attr, total: Attr| match (number(attr), number(total)) {
        (Some(done), Some(total)) => Some(format!("{done}/{total}")),
        (Some(done), None) => Some(done.to_string()),
        _ => None,
    };
    let shown = attributes.iter().filter_map(|pair| match Attr::from_key(pair.key.as_str()) {
        Some(Attr::ApiTsMonotonic | Attr::EventType | Attr::TsMonotonic | Attr::TsMonotonicNs) => None,
        Some(Attr::PrefillTotal | Attr::DecodeMax) => None,
        Some(Attr::NumPreemptions | Attr::PrefillRecomputed) if pair.value == Value::I64(0) => None,
        Some(Attr::PrefillDone) => Some(format!("prefill={}", progress(Attr::PrefillDone, Attr::PrefillTotal)?)),
        Some(Attr::DecodeDone) => Some(format!("decode={}", progress(Attr::DecodeDone, Attr::DecodeMax)?)),
        _ => Some(shown_pair(pair)),
    });
    shown.collect()
}

fn shown_pair(pair: &KeyValue) -> String {
    let key = pair.key.as_str();
    let key = Clean(key.strip_prefix("gen_ai.").unwrap_or(key));
    match &pair.value {
        Value::F64(value) if key.0.starts_with("latency.") || key.0.ends_with("time_preempted") => {
            format!("{key}={}", millis(*value).replace(' ', ""))
        }
        Value::String(text) if text.as_str().contains(' ') => format!("{key}={:?}", text.as_str()),
        value => format!("{key}={}", Clean(&value.as_str())),
    }
}

/// Text of unknown origin: what a terminal would obey is shown, and not sent.
struct Clean<'a>(&'a str);

impl Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if c.is_control() => write!(f, "{}", c.escape_default()),
            c => f.write_char(c),
        })
    }
}
