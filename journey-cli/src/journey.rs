//! One request, put together from its spans, and where its time went.

use std::ops::Range;

use journey_schema::{Attr, Event, FinishStatus, SpanName};

use crate::model::{Attributes, Name, Span, SpanId, SpanRef, StatusCode, Value};

/// What a stretch of a journey's time was spent on. The parts of a journey add up to its whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// ARRIVED to QUEUED: parsing, rendering, the way to the core.
    Handoff,
    /// QUEUED to the first SCHEDULED.
    Queue,
    /// SCHEDULED to FIRST_TOKEN, without the time preempted.
    Prefill,
    /// PREEMPTED to the SCHEDULED that resumes it.
    Preempted,
    /// FIRST_TOKEN to FINISHED, without the time preempted.
    Decode,
    /// FINISHED to DEPARTED or ABORTED: the way back and the end of the response.
    Response,
    /// No `llm_core` says what happened.
    Untraced,
}

impl Part {
    /// All parts, in the order of a journey.
    pub const ALL: [Self; 7] =
        [Self::Handoff, Self::Queue, Self::Prefill, Self::Preempted, Self::Decode, Self::Response, Self::Untraced];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handoff => "handoff",
            Self::Queue => "queue",
            Self::Prefill => "prefill",
            Self::Preempted => "preempted",
            Self::Decode => "decode",
            Self::Response => "response",
            Self::Untraced => "untraced",
        }
    }

    /// What it spans.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Handoff => "ARRIVED to QUEUED",
            Self::Queue => "QUEUED to the first SCHEDULED",
            Self::Prefill => "SCHEDULED to FIRST_TOKEN, without the time preempted",
            Self::Preempted => "PREEMPTED to SCHEDULED (RESUME)",
            Self::Decode => "FIRST_TOKEN to FINISHED, without the time preempted",
            Self::Response => "FINISHED to DEPARTED or ABORTED",
            Self::Untraced => "no llm_core tells",
        }
    }
}

/// Nanoseconds of each part, by [`Part::ALL`].
pub type Parts = [u64; Part::ALL.len()];

/// A stretch of one part, on the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it was spent on.
    pub part: Part,
    /// From, nanoseconds since the epoch.
    pub from: u64,
    /// To, nanoseconds since the epoch.
    pub to: u64,
}

/// The `llm_request` of a journey.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its span.
    pub span_id: SpanId,
    /// `gen_ai.request.id`.
    pub request_id: Box<str>,
    /// `gen_ai.response.model`, or nothing.
    pub model: Box<str>,
    /// `http.route`, or nothing.
    pub route: Box<str>,
    /// ARRIVED to the terminal event, or the span's own times.
    pub time: Range<u64>,
    /// FIRST_RESPONSE_FROM_CORE.
    pub first_response: Option<u64>,
    /// Whether HANDOFF_TO_CORE was seen.
    pub handed_off: bool,
    /// How it ended.
    pub end: End,
    /// `gen_ai.usage.prompt_tokens`.
    pub prompt_tokens: Option<i64>,
    /// `gen_ai.usage.completion_tokens`.
    pub completion_tokens: Option<i64>,
    /// `gen_ai.request.n`, 1 if it is not given.
    pub n: u32,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// DEPARTED.
    Departed,
    /// ABORTED, for that reason.
    Aborted(Box<str>),
    /// Neither.
    Unknown,
}

/// One sequence: an `llm_core`.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Its span.
    pub span_id: SpanId,
    /// The sequence's own `gen_ai.request.id`.
    pub request_id: Box<str>,
    /// First event to last, or the span's own times.
    pub time: Range<u64>,
    /// Stretches in order, without gaps.
    pub segments: Vec<Segment>,
    /// FIRST_TOKEN.
    pub first_token: Option<u64>,
    /// Whether it was ever SCHEDULED.
    pub scheduled: bool,
    /// Whether FINISHED was seen.
    pub finished: bool,
    /// `finish.status`, if it is one of the schema's.
    pub status: Option<FinishStatus>,
    /// PREEMPTED events.
    pub preemptions: u32,
    /// Output tokens after the first, of which the time from FIRST_TOKEN to FINISHED is the sum.
    pub tokens_after_first: Option<i64>,
    /// `prefill.recomputed_tokens`, where the engine counts them.
    pub recomputed: Option<i64>,
    /// Tokens that were in the cache at each preemption: at most these had to be computed again.
    pub thrown_away: i64,
}

/// A request and its sequences.
#[derive(Clone, Debug)]
pub struct Journey {
    /// Trace, and the span of the `llm_request` (of the `llm_core`, if that has no parent).
    pub id: SpanRef,
    /// The `llm_request`, when it has been seen.
    pub request: Option<Request>,
    /// Its sequences.
    pub sequences: Vec<Sequence>,
}

/// The journey that a span belongs to: an `llm_core` to its parent's, so that either may come first.
pub fn journey_of(span: &Span) -> Option<SpanRef> {
    match span.name {
        Name::Known(SpanName::LlmRequest) if span.scope.name == SpanName::LlmRequest.scope().name() => Some(span.id),
        Name::Known(SpanName::LlmCore) if span.scope.name == SpanName::LlmCore.scope().name() => {
            Some(span.parent_ref().unwrap_or(span.id))
        }
        _ => None,
    }
}

impl Request {
    /// Takes what a report needs from an `llm_request`.
    pub fn from_span(span: &Span) -> Self {
        let text = |attr: Attr| span.attributes.attr(attr).and_then(Value::as_str).unwrap_or("").into();
        let int = |attr: Attr| span.attributes.attr(attr).and_then(Value::as_int);
        let time = |event: Event| span.event(event).map(|event| event.time);
        let aborted = span.event(Event::Aborted);
        let end = match aborted {
            Some(event) => {
                End::Aborted(event.attributes.attr(Attr::Reason).and_then(Value::as_str).unwrap_or("no reason").into())
            }
            None if span.event(Event::Departed).is_some() => End::Departed,
            None if span.status == StatusCode::Error => End::Aborted("status error, no event".into()),
            None => End::Unknown,
        };
        let from = time(Event::Arrived).unwrap_or(span.start);
        let to = time(Event::Departed).or(aborted.map(|event| event.time)).unwrap_or(span.end);
        Self {
            span_id: span.id.span_id,
            request_id: text(Attr::RequestId),
            model: text(Attr::ResponseModel),
            route: text(Attr::HttpRoute),
            time: from..to.max(from),
            first_response: time(Event::FirstResponseFromCore),
            handed_off: time(Event::HandoffToCore).is_some(),
            end,
            prompt_tokens: int(Attr::PromptTokens),
            completion_tokens: int(Attr::CompletionTokens),
            n: int(Attr::N).and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
        }
    }
}

impl Sequence {
    /// Takes what a report needs from an `llm_core`.
    pub fn from_span(span: &Span) -> Self {
        let mut sequence = Self {
            span_id: span.id.span_id,
            request_id: span.request_id().into(),
            time: span.start..span.end.max(span.start),
            segments: Vec::with_capacity(span.events.len()),
            first_token: None,
            scheduled: false,
            finished: false,
            status: None,
            preemptions: 0,
            tokens_after_first: None,
            recomputed: None,
            thrown_away: 0,
        };
        let mut open: Option<(Part, u64)> = None;
        let mut tokens_at_first = None;
        for event in &span.events {
            let Some(kind) = event.name.known().filter(|kind| kind.span() == SpanName::LlmCore) else { continue };
            let int = |attr: Attr| event.attributes.attr(attr).and_then(Value::as_int);
            // Clocks are adjusted: a stretch never ends before it began.
            let now = event.time.max(open.map_or(0, |(_, from)| from));
            let running = if sequence.first_token.is_some() { Part::Decode } else { Part::Prefill };
            let next = match kind {
                Event::Queued => Some(Part::Queue),
                Event::Scheduled => {
                    sequence.scheduled = true;
                    Some(running)
                }
                Event::FirstToken => {
                    sequence.first_token.get_or_insert(now);
                    tokens_at_first = int(Attr::DecodeDone);
                    Some(Part::Decode)
                }
                Event::Preempted => {
                    sequence.preemptions += 1;
                    let tokens = int(Attr::PrefillDone).unwrap_or(0).saturating_add(int(Attr::DecodeDone).unwrap_or(0));
                    sequence.thrown_away = sequence.thrown_away.saturating_add(tokens.max(0));
                    Some(Part::Preempted)
                }
                _ => None,
            };
            if let Some(recomputed) = int(Attr::PrefillRecomputed) {
                sequence.recomputed = Some(recomputed);
            }
            match open {
                Some((part, from)) => sequence.segments.push(Segment { part, from, to: now }),
                None => sequence.time.start = now,
            }
            open = next.map(|part| (part, now));
            if kind == Event::Finished {
                sequence.finished = true;
                sequence.time.end = now;
                sequence.status = event
                    .attributes
                    .attr(Attr::FinishStatus)
                    .and_then(Value::as_str)
                    .and_then(FinishStatus::from_value);
                sequence.tokens_after_first =
                    tokens_at_first.zip(int(Attr::DecodeDone)).map(|(first, last)| last.saturating_sub(first).max(0));
                break;
            }
        }
        if let Some((part, from)) = open {
            let to = span.end.max(from);
            sequence.segments.push(Segment { part, from, to });
            sequence.time.end = to;
        }
        sequence
    }

    /// The sum of one part.
    pub fn part(&self, part: Part) -> u64 {
        self.segments.iter().filter(|segment| segment.part == part).map(|segment| segment.to - segment.from).sum()
    }

    /// Time per output token after the first, preemptions included: what the reader of a stream waits for.
    pub fn inter_token(&self) -> Option<u64> {
        let tokens = u64::try_from(self.tokens_after_first?).ok().filter(|tokens| *tokens > 0)?;
        Some(self.time.end.checked_sub(self.first_token?)? / tokens)
    }
}

impl Journey {
    /// A journey of which nothing is known yet.
    pub fn new(id: SpanRef) -> Self {
        Self { id, request: None, sequences: Vec::new() }
    }

    /// Whether every span of it is here.
    pub fn is_complete(&self) -> bool {
        self.request.as_ref().is_some_and(|request| {
            let refused = !request.handed_off && matches!(request.end, End::Aborted(_)) && self.sequences.is_empty();
            refused || self.sequences.len() >= request.n.max(1) as usize
        })
    }

    /// From arrival to the end; without an `llm_request`, what its sequences span.
    pub fn time(&self) -> Range<u64> {
        match &self.request {
            Some(request) => request.time.clone(),
            None => {
                let from = self.sequences.iter().map(|sequence| sequence.time.start).min().unwrap_or(0);
                let to = self.sequences.iter().map(|sequence| sequence.time.end).max().unwrap_or(from);
                from..to
            }
        }
    }

    /// ARRIVED to the terminal event.
    pub fn e2e(&self) -> u64 {
        let time = self.time();
        time.end - time.start
    }

    /// ARRIVED to FIRST_RESPONSE_FROM_CORE; where that was not emitted, to the first FIRST_TOKEN of its sequences.
    pub fn time_to_first_token(&self) -> Option<u64> {
        let first = self
            .request
            .as_ref()
            .and_then(|request| request.first_response)
            .or_else(|| self.sequences.iter().filter_map(|sequence| sequence.first_token).min())?;
        first.checked_sub(self.time().start)
    }

    /// PREEMPTED events of all sequences.
    pub fn preemptions(&self) -> u32 {
        self.sequences.iter().map(|sequence| sequence.preemptions).sum()
    }

    /// The sequence that ended last: the one that the request waited for.
    pub fn critical(&self) -> Option<&Sequence> {
        self.sequences.iter().max_by_key(|sequence| sequence.time.end)
    }

    /// The journey's time cut into stretches, without gap or overlap, by what its critical sequence was doing.
    pub fn segments(&self) -> Vec<Segment> {
        let time = self.time();
        let Some(critical) = self.critical() else {
            let refused =
                self.request.as_ref().is_some_and(|request| !request.handed_off && request.end != End::Departed);
            let part = if refused { Part::Handoff } else { Part::Untraced };
            return vec![Segment { part, from: time.start, to: time.end }];
        };
        let mut cursor = time.start;
        let mut segments = Vec::with_capacity(critical.segments.len() + 2);
        let mut push = |part, to: u64, cursor: &mut u64| {
            if to > *cursor {
                segments.push(Segment { part, from: *cursor, to });
                *cursor = to;
            }
        };
        for (index, segment) in critical.segments.iter().enumerate() {
            if index == 0 {
                push(Part::Handoff, segment.from.min(time.end), &mut cursor);
            }
            push(segment.part, segment.to.min(time.end), &mut cursor);
        }
        push(Part::Response, time.end, &mut cursor);
        segments
    }

    /// How long each part took. Their sum is [`Journey::e2e`].
    pub fn parts(&self) -> Parts {
        let mut parts = Parts::default();
        for segment in self.segments() {
            parts[segment.part as usize] += segment.to - segment.from;
        }
        parts
    }

    /// The request's id, or else a sequence's.
    pub fn request_id(&self) -> &str {
        match &self.request {
            Some(request) => &request.request_id,
            None => self.sequences.first().map_or("", |sequence| &sequence.request_id),
        }
    }

    /// How it ended, in a word or two.
    pub fn status(&self) -> &str {
        match &self.request {
            Some(Request { end: End::Departed, .. }) => "departed",
            Some(Request { end: End::Aborted(reason), .. }) => reason,
            Some(Request { end: End::Unknown, .. }) => "no terminal event",
            None => "no llm_request",
        }
    }
}
